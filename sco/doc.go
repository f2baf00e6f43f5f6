// Package sco is the Storage Container Object: a file of consecutive writes
// of one vDisk, at first in the write buffer and then, unchanged, an object in
// the backend. The package holds its name, its locations and its format; it
// has no policy and touches no disk and no network.
package sco
