// Package fragmentcache keeps ranges of fragments on a local disk, so that what
// is read again comes from near. It holds nothing that is not elsewhere: it
// never syncs, whatever is missing or bad in it is a miss, and its directory may
// be deleted while nothing runs.
//
// The unit is the extent: what was put, cut at the borders of pages. A page is
// PageBytes of a fragment; an extent is a run of its 4 KiB blocks. The blocks of
// a page that are put later make a further extent; extents are never merged, and
// no block of a page is in two that the index knows. A get hits if all blocks
// that it asks for are there, in however many extents.
//
//	Put ─► admitted? ─► queue ─► writer ─► segment, open ─► sealed ─► ... ─► oldest
//	                                         ▲                                │ hit since it was written
//	                                         └───────── second chance ◄───────┴─► evicted
//
// Extents are appended to segment files, which are evicted whole, oldest first;
// extents that were hit since they were written are appended again, up to half
// a segment. One goroutine writes. Files hold at most Options.Bytes together.
//
// An extent is admitted while there is room; then when one of its blocks was put
// before and is still remembered, so that what is read once, as by a scan, evicts
// nothing.
//
// The index is in memory: for each extent a fingerprint of its page, where it
// lies and which blocks it has, 13 bytes; for each block the checksum that came
// with it. The fingerprint is a hash of 64 bits under a seed of this process.
// Two pages with one fingerprint would answer for each other: the caller, who
// must check what it gets against checksums seeded with what it asked for (rule
// P2), finds bad bytes then, as for bytes that the disk changed, and calls Bad.
//
// Files of Options.Dir: LOCK, and segments named by their numbers,
// 0000000000000001.segment and so on (format.go). A sealed segment ends with its
// index, and a start reads only those; one that is not sealed is removed.
package fragmentcache
