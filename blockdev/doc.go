// Package blockdev makes block devices, of files and of NBD servers: the loop
// and the NBD devices of Linux. It tells who uses one. All calls need root.
//
// A loop device reads and writes its file directly, without a page cache of the
// file in between, passes flushes on as fsync and discards as holes, and shows
// the partitions that are on it.
//
// An NBD device sends requests on sockets that it is given by generic netlink,
// past their handshake. When they break it keeps its users waiting for a while,
// for others: a server may be started anew under a mounted file system.
package blockdev
