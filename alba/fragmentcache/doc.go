// Package fragmentcache keeps ranges of fragments on a local disk, so that what
// is read again comes from near. Everything in it is also elsewhere: the cache
// never syncs, a missing or bad range is a miss, and the directory may be deleted
// while nothing runs.
//
// The unit is the extent: what was put, cut at the borders of pages. A page is
// PageBytes of a fragment; an extent is a run of its 4 KiB blocks. Blocks of a
// page that are put later make another extent. Extents are never merged, and a
// block is in at most one extent of the index. A get hits if all blocks that it
// asks for are there, in however many extents.
//
//	Put ─► admitted? ─► queue ─► writer ─► segment, open ─► sealed ─► ... ─► oldest
//	                                         ▲                                │ hit since it was written
//	                                         └───────── second chance ◄───────┴─► evicted
//
// Extents are appended to segment files, which are evicted whole, oldest first.
// Extents that were hit since they were written are appended again, up to half
// a segment. One goroutine writes. All files together hold at most Options.Bytes.
//
// While there is room, every extent is admitted. After that an extent is admitted
// only if one of its blocks was put before and is still remembered. So data that
// is read once, as by a scan, evicts nothing.
//
// The index is in memory. For each extent it has a fingerprint of the page, where
// the extent lies and which blocks it has, 13 bytes; for each block it has the
// checksum that came with it. The fingerprint is a hash of 64 bits under a seed of
// this process. Two pages with one fingerprint would answer for each other. The
// caller must check what it gets against checksums seeded with what it asked for
// (rule P2): it then finds bad bytes, as it would if the disk had changed them, and
// calls Bad.
//
// Options.Dir holds LOCK and the segments, named by their numbers:
// 0000000000000001.segment and so on (format.go). A sealed segment ends with its
// index, and a start reads only the indexes. An unsealed segment is removed.
package fragmentcache
