// Package transport brings the messages of one member of a group to the others, and fetches
// snapshots from them, over package wire. A Transport is both the arakoon.Transport and the
// arakoon.Fetcher of a node; Groups is the service that answers for all groups of a host.
//
// # Streams
//
// To each other member there are up to two connections, each dialled when it is first
// needed and kept up with back-off. All raft asks of a network is that messages are not
// altered: any may be lost, or come late, twice or in another order. What each connection
// promises beyond that is for speed:
//
//   - Heartbeats, votes, acknowledgements and offers of snapshots go over one of their own,
//     so that no append can delay them, whatever lies in its socket's buffer. A leader that
//     is busy sending would otherwise seem dead. If too many wait the oldest are dropped:
//     newer ones say more.
//   - Appends go over the other, with several requests in flight. They are delivered in the
//     order in which they were sent, as one that comes before its predecessor is rejected,
//     and raft then sends one at a time until it knows better. The wire lets small messages
//     pass large ones, so requests are numbered and the receiver puts them back in order.
//     Once one is lost, those that wait behind it are dropped, and raft is told.
//
// Send never blocks and never writes to a socket: it queues, within bounds in messages and
// bytes, and a goroutine of the stream encodes and writes. What finds the queue full, or no
// connection, is dropped; if it was an append, raft is told (ReportUnreachable), and probes.
//
// # Who may say what
//
// The wire refuses another cluster, another life of the group, and groups that are not here.
// Of each request the member that it is from must belong to the host at the other end
// (Options.Belongs), and the member that it is for must be this one. Each message in it must
// say the same. A group that was begun anew, under another life, refuses what older
// connections still bring. What is refused is answered with a status by name, counted in
// Stats, and logged once for each connection and status.
//
// # Bytes
//
// The service is "ovs-raft", the group's name is that of the group. Numbers are
// little-endian; zero is room for later versions and must be zero.
//
// Operation 1, messages. Header:
//
//	offset size field
//	  0     1   version 1
//	  1     1   stream: 0 urgent, 1 ordered
//	  2     2   messages, 1 to 1024
//	  4     4   run of the ordered stream, from 1 on; a higher one begins at number 0
//	  8     8   number in the run
//	 16     8   member that it is from
//	 24     8   member that it is for
//
// Body, for each message: 4 bytes of length, and raft's Message as protobuf. They have up to
// 131072 entries in all. The answer is empty.
//
// Operations 2 and 3: list the files of a snapshot, read of a file. Header:
//
//	 0     1   version 1
//	 1     1   zero
//	 2     2   length of the name; 0 in a list
//	 4     4   bytes to read, 1 to 1 MiB; else 0
//	 8     8   offset to read at; else 0
//	16     8   member that it is from
//	24     8   member that it is for
//	32    16   snapshot
//	48         name
//
// Answer of a list, header: version 1, three zeros, 4 bytes of how many files, at most 65536.
// Body, for each: 2 bytes of length of the name, 8 bytes of size, 4 bytes CRC-32C of the whole
// file, name. Names have 1 to 255 bytes and no slash, and do not end in ".part". Answer of a
// read: an empty header; the body is what was asked for, or up to the end of the file.
//
// Statuses are at Status.
package transport
