// Package nbd serves block devices over the NBD protocol: a server for the
// fixed newstyle handshake and the transmission phase with simple replies,
// structured replies or extended headers, whichever the client asks for. What
// it serves is a Device, found by name in Exports.
//
// A connection runs to completion. One goroutine reads as many requests as the socket
// holds, hands all their writes to the device as one batch straight from the receive
// buffer, reads into the reply buffer, and answers with one write. A request that would
// block goes to a parked goroutine, and so does every flush; its reply joins the others in
// a combining writer. Replies may come in any order. In the steady state nothing is
// allocated, and an idle connection holds no buffer.
//
// With extended headers one TRIM, WRITE_ZEROES, CACHE or BLOCK_STATUS may cover a whole
// device of any size; READ and WRITE stay at 32 MiB. A TRIM or WRITE_ZEROES is one call of
// the device. A CACHE or BLOCK_STATUS is calls of 4 GiB each, for a bounded time.
//
// Clients are strangers to each other. All memory that a client makes the server hold is
// charged to that client, when the bytes arrive and not when they are announced. A client
// waits for its own requests only. A client that takes or sends a byte now and then is
// sent away. Each kind of client, each listener and each address has its part of the
// connections. The attacks of nbd/hostile show what that is for.
//
// A listener may allow or require TLS, which clients begin with STARTTLS. Until its handshake
// has ended a client is a stranger as any other: it has the same deadline, and makes room for
// others in the same way. Nothing that was negotiated in plain text holds afterwards. The
// certificate says which exports there are for a client.
//
// The files: protocol.go has the wire formats, handshake.go and options.go the
// handshake, starttls.go and secure.go TLS, clients.go who may connect, parse.go and transmission.go the
// requests, receive.go long payloads, task.go what may block, admit.go and
// memory.go who may have how much memory (rule P5), narrow.go reads for which there is too
// little of it, status.go the commands that only ask about ranges, reply.go the combining
// writer, pace.go what is held for slow clients, resender.go the rule for a client that
// sends requests again, socket.go the system calls, limits.go and buffers.go what bounds
// the memory, errno.go the errors.
package nbd
