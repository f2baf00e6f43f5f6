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
// Clients are strangers to each other. What one holds is charged to it when it
// has come, not when it is announced, all of it; a client waits for requests of
// its own and for nobody else's; who takes a byte now and then, or sends one, is
// sent away; and each kind of client, each listener and each address has its
// part of the connections. The attacks of nbd/hostile show what that is for.
//
// The files: protocol.go has the wire formats, handshake.go and options.go the
// handshake, clients.go who may connect, parse.go and transmission.go the
// requests, receive.go long payloads, task.go what may block, admit.go and
// memory.go who may have how much of it (rule P5), narrow.go reads for which
// there is too little, status.go what looks at ranges, reply.go the combining
// writer, pace.go what is held for slow clients, resender.go what is owed to a
// client that sends requests again, socket.go the system calls, limits.go and
// buffers.go what bounds the memory, errno.go the errors.
package nbd
