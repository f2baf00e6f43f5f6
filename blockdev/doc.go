// Package blockdev makes block devices of files and of NBD servers, with the loop
// and the NBD devices of Linux. It also finds the users of a device. All calls need
// root.
//
// A loop device reads and writes its file directly, without the file's page cache in
// between. It passes flushes on as fsync, and discards as holes. The kernel shows the
// partitions that are on it.
//
// An NBD device gets its sockets by generic netlink, after their handshake, and sends
// its requests on them. When all sockets break, requests wait a while for new ones: so
// a server can be restarted under a mounted file system.
package blockdev
