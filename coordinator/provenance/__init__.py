"""The net's history as others can check it: the signed log, its verification, bundles."""
