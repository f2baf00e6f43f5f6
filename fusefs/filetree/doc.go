// Package filetree is what a mount keeps beside its vDisks: directories, small
// ordinary files such as definitions of VMs and their NVRAM, files of vDisks
// that have no size yet, and the owners, modes and times of all of them and of
// the vDisks.
//
// A Tree is all of it in memory but for contents, over Keys, an ordered
// replicated store. It is the only one that writes them. Every change is
// durable when the call returns, whole or not at all.
//
// Keys, numbers big-endian so that they sort:
//
//	files/e/PATH            an entry; PATH has no slash at its ends
//	files/c/ node8 piece4   64 KiB of the content of a file, the last piece less
//	files/d/ id16           attributes of the vDisk with that id
//
// A key below files/ that is none of these is a later release's: the tree is not
// opened, and nothing in it is deleted. Values of e and d are records:
//
//	at  size
//	 0     1  version: 1, or 2 of a vDisk
//	 1     1  kind: 1 directory, 2 file, 3 vDisk without size, 4 vDisk
//	 2     4  mode, the twelve low bits
//	 6     4  owner
//	10     4  group
//	14     8  modified, nanoseconds since 1970
//	22     8  changed, nanoseconds since 1970
//	30     8  node: number of the entry, given once in the tree's life while
//	          anything has it; 0 of a vDisk
//	38     8  size of the file in bytes, else 0
//	46
//
// and in version 2, which is of a vDisk,
//
//	46     8  epoch of the vDisk and
//	54     8  seq in its order when "modified" was the time of its last change;
//	          0 and 0: as far as is known nothing was ever written
//	62
//
// The owner and group of a vDisk are all ones if it has none of its own.
package filetree
