// Package wire is the one framing for all traffic between hosts but NBD and HTTP:
// requests and answers with headers and bodies, many in flight on one connection.
//
// Conn is the end that asks, Server the end that answers. Redialer keeps a Conn up. A connection is TCP or a unix
// socket, perhaps with TLS 1.3 over it; its configuration is the caller's, and ALPN names the
// service. Behind TLS, or at once, each end sends a preface, and from then on frames.
//
// # What is promised
//
//   - Answers come in any order. Each request gets one, also one that was cancelled.
//   - A small message (charged up to 64 KiB) never waits for a large one: it has a window of
//     its own, and goes before the next piece of up to 256 KiB.
//   - Maintenance waits for clients, but gets one frame for every eight batches of theirs. A
//     client's frame waits for at most one of maintenance.
//   - A call ends when its context does, or up to 10 ms later. Its error says whether the request
//     was not sent, or its outcome is unknown.
//   - A peer that is silent is found dead within four times Limits.Ping, by pings that are sent
//     only while nothing comes. They touch no disk. A frame that stops in its middle ends
//     the connection after Limits.Stall, a message that stops between its frames after
//     Limits.Whole, both seen at the next look.
//   - What breaks the protocol ends its connection, which is told why; others go on.
//
// # Memory
//
// Lengths are checked before memory is taken. What a peer may send is bounded by
// windows that were announced to it: a sender takes room for a whole message before its
// first frame, so that parts of messages can never fill a window. Room comes back when
// the message's Buffer is released. A server has a bound over all connections besides:
// what does not fit is answered with CodeBusy and read into nothing. A connection itself
// takes 96 KiB, with TLS 256 KiB, and nothing of that before the prefaces.
//
// Bodies are not copied but for those up to 8 KiB, which leave with their heads. Who owns a
// body is said at Buffer.
//
// # Bytes
//
// All numbers are little-endian. Sums are CRC-32C. What is zero is room for later versions.
//
// A preface, whose layout no version changes:
//
//	offset size field
//	  0     8   magic "OVSWIRE1"
//	  8     2   newest version of the framing that the sender speaks: 1
//	 10     2   oldest version
//	 12     2   kind: 1 hello, by whoever dialled; 2 welcome and 3 refusal, its answers
//	 14     2   length of the text, at most 1024
//	 16    16   cluster
//	 32    16   host
//	 48     8   life of the group
//	 56     8   generation of the host's data directory
//	 64     4   feature level of the sender
//	 68     4   the lowest feature level of a peer that it takes
//	 72    16   bytes that it takes in flight: clients' small and large messages, maintenance's
//	 88     8   requests that it takes in flight: clients', maintenance's
//	 96     4   longest body that it takes
//	100     2   code of a refusal
//	102    18   zero; ignored by a reader
//	120     4   sum of the text
//	124     4   sum of bytes 0..123
//	128         text. hello: service, a zero byte, group; refusal: why
//
// A frame:
//
//	offset size field
//	 0      2   magic 0x574f
//	 2      1   version 1
//	 3      1   kind: 1 request, 2 reply, 3 piece, 4 cancel, 5 window, 6 ping, 7 pong, 8 goodbye
//	 4      2   operation; status of a reply; code of a goodbye; number of a window
//	 6      1   flags; bit 0: the piece has a sum
//	 7      1   priority: 0 clients, 1 maintenance
//	 8      8   request id, used once in a connection
//	16      4   deadline of a request in milliseconds from when it is whole, 0 is none; credit of a window
//	20      4   bytes of header, at most 64 KiB
//	24      4   bytes of the whole body, at most 32 MiB
//	28      4   bytes of the body in this frame, at most 256 KiB
//	32      4   sum of these
//	36      4   sum of the header
//	40      4   zero
//	44      4   sum of bytes 0..43
//	48          header, then the part of the body
//
// A message is charged 256 bytes, its header and its body to the window of its
// priority and size. Whoever asks sends requests, pieces, cancel, window, ping, pong
// and goodbye; whoever answers sends replies instead of requests, and cancel for an answer of
// which no further piece comes.
package wire
