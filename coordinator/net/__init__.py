"""The transplant net as objects: trees and commits, reading, composing, comparing, verifying."""
