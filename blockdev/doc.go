// Package blockdev makes block devices of files: the loop devices of Linux.
// All calls need root.
//
// A loop device reads and writes its file directly, without a page cache of the
// file in between, passes flushes on as fsync and discards as holes, and shows
// the partitions that are on it.
package blockdev
