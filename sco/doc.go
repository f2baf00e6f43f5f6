// Package sco is the Storage Container Object: a row of consecutive writes of one
// vDisk. An SCO is a file in the write buffer at first, and then an object in the
// backend. The package holds names, locations and the format; it has no policy and
// touches no disk and no network.
package sco
