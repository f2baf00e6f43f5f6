// Package nbd serves block devices over the NBD protocol: a server for the
// fixed newstyle handshake and the transmission phase with simple replies,
// structured replies or extended headers, whichever the client asks for. What
// it serves is a Device, found by name in Exports.
//
// A connection runs to completion: one goroutine reads as many requests as the
// socket holds, hands all their writes to the device as one batch straight
// from the receive buffer, reads into the reply buffer, and answers with one
// write. What would block, and every flush, goes to a parked goroutine whose
// reply joins the others in a combining writer. Replies may come in any order.
// Steady state allocates nothing, and an idle connection holds no buffer.
//
// With extended headers a TRIM, WRITE_ZEROES, CACHE or BLOCK_STATUS may be
// about a whole device of any size; READ and WRITE stay at 32 MiB. TRIM and
// WRITE_ZEROES are one call of the device. The other two are calls of 4 GiB
// each for a bounded time.
//
// The files: protocol.go has the wire formats, handshake.go and options.go the
// handshake, parse.go and transmission.go the requests, task.go what may block,
// status.go what looks at ranges, reply.go the combining writer, resender.go
// what is owed to a client that sends requests again, socket.go the system
// calls, limits.go and buffers.go what bounds the memory (rule P5), errno.go the
// errors.
package nbd
