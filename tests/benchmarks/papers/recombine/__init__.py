"""The experiments of Compatible Representations (Gygli, Uijlings, Ferrari): nets recombined."""
