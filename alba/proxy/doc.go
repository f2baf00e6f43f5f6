// Package proxy is an object store behind a connection: [Server] answers for a store of one
// process, and [Client] is a backend.Store that asks such processes, over internal/wire. So all
// volume drivers of a host share the caches and the disks of one process. It passes the suite of
// package backend as the store behind it does.
//
// # What is promised
//
//   - What a call may return is what package backend says: each of its errors matches the same
//     sentinel on this side, and its words come along.
//   - A call ends when its context does. A Put waits besides until the connection has let go of
//     the caller's memory, which a proxy that takes nothing can delay for Options.Limits.Stall.
//   - Of several proxies the first one that answers is asked. One that is away, closes, dies or
//     does not answer within Options.Patience is left for the next one.
//   - A proxy that stands still is found dead by its silence, within four times
//     Options.Limits.Ping, whatever the patience.
//   - A read that no proxy answers matches backend.ErrUnavailable: it may succeed later. A change
//     that no proxy has begun matches ErrUnreachable.
//   - A Put or a Get is one request of up to 32 MiB. What is longer is put together at the proxy
//     first (up to ServerOptions.Held at a time), or read in parts that are of one version. So it
//     is as whole as a short one.
//
// # What is repeated
//
// An attempt that a proxy did not begin, or refused before it changed anything, is made again by
// the next one, whatever the call. If it is not known whether a proxy has done it, the call decides:
//
//	call                               then
//	Get, Stat, List, Narrow, ...       made again: it changes nothing
//	Put                                made again: an object of equal bytes is success
//	Delete                             made again: absent names are no error
//	PutIf                              not made again: the caller is told that it is unknown
//	CreateNamespace, DeleteNamespace   not made again, for the same reason
//
// A PutIf that is repeated after it was done would meet its own version, and be told
// of a conflict: a lie. An object of equal bytes does not prove that it was this call that put it,
// so that two callers could win one version. Whoever called looks at the object, and puts again
// under the version that it finds, as after an unknown outcome of any store.
//
// After an attempt of unknown outcome, an answer to a repeat tells only of the repeat. Errors that
// say "nothing was changed" do not match their sentinels any more, so that backend.Unknown is true
// of them; those of them remain that are true whatever became of the first attempt, such as ErrExists.
//
// # What is weaker
//
// Package backend says: if one change of a namespace is begun after another, the first never takes
// effect after the second has returned. Through several proxies that holds of changes under a
// version: PutIf, and Delete with a condition on an object that a PutIf has replaced since. It does
// not hold of a Put, an unconditional Delete or a namespace made or deleted, if a proxy stood still in
// the midst of it, another one did it and what came after it, and the first goes on. Whoever shares
// proxies uses names of objects and namespaces once (rule O11). Then the late Put leaves at most an
// object that nothing refers to.
//
// # Who may
//
// Service takes an Admit, and refuses everybody without one. On a unix socket the mode of the file
// decides (Anyone); on TCP the table of package trust, calls proxy/read and proxy/write.
//
// # Bytes
//
// The group that a connection names is the UUID of the store, or nothing: then whoever answers is
// asked for it. A proxy of another store refuses the connection.
//
// All numbers are little-endian. A name is u8 its length, then its bytes. ns and object are names.
// A body has a checksum of the wire, but for unix sockets, whose bytes stay in memory.
//
//	operation      header                                   body
//	 1 put         ns, object, u64 held                     its bytes; empty if held is not 0
//	 2 put-if      ns, object, u64 held, u64 version        the same
//	 3 get         ns, object, u64 off, u32 n               -
//	 4 stat        ns, object                               -
//	 5 delete      ns, u32 count, u8 1 if it has a          count times: name
//	               condition, then name, u64 version
//	 6 list        ns, prefix as a name, after as a name    -
//	               (of length 0: from the beginning), u32
//	               limit of 1 to 1000
//	 7 narrow      ns, u32 count up to 1000                 count times: name
//	 8 create      ns                                       -
//	 9 remove      ns                                       -
//	10 namespaces  after as a name                          -
//	11 usage       -                                        -
//	12 hold        u64 held, u64 size, u64 at               bytes of a put, from at
//	13 stats       -                                        -
//	14 identify    -                                        -
//
// The header of a put names what is held by a number that is not 0, used once in a connection.
//
// Answers with status 0:
//
//	put, delete, create, remove, hold   -
//	put-if      header: u64 version
//	get         header: u8 1 at the end of the object   body: the bytes
//	stat        header: u64 size, u64 version
//	usage       header: u64 used, u64 free
//	list        header: u32 count, u8 1 if there is more   body: count times: name, u64 size, u64 version
//	narrow, namespaces   the same header                   body: count times: name
//	identify    header: 16 bytes, the UUID of the store
//	stats       the same header                            body: count times: name, and three times
//	            (get; put and put-if; others) u64 calls, errors, bytes, microseconds, and 26 times u64
//	            calls that took less than 2^i microseconds and not less than half of that
//
// The status of a failed answer says which error it is, its header has the words:
//
//	256 other                 262 corrupt       268 takes no changes
//	257 not found             263 no space      269 the request's time has passed
//	258 exists                264 no name       270 malformed
//	259 conflict              265 closed        271 nothing of that number is held
//	260 namespace not found   266 no key        272 no memory for it, come again
//	261 namespace exists      267 unavailable
package proxy
