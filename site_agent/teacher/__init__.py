"""A lab's teacher net: trained, described by statistics and packaged for shipping."""
