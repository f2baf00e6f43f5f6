// Package transport carries FUSE requests from the kernel to a file system of
// go-fuse, and replies back. It mounts, serves and unmounts; what a request
// means is the library's affair (fuse.ProtocolServer), but for reads and writes,
// which go to the file system directly.
//
// There are two ways to the kernel:
//
//   - The device /dev/fuse: a system call brings one request, another one takes
//     the reply.
//   - An io_uring for each CPU (Linux 6.14, where the module's parameter
//     enable_uring is set): a request is answered on the CPU that asked, by a
//     thread that is there already, and one system call takes all replies and
//     brings the next requests. The device remains for what the kernel sends
//     there alone: interrupts and forgets.
//
// A read or write is first tried on the thread that has it, with a context for
// which MayWait is false; a file system that would have to wait for anything
// slower than memory returns EAGAIN, and the request goes to a goroutine. All
// other requests go to one at once.
package transport
