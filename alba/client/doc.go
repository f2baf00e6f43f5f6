// Package client is ALBA's client: it implements backend.Store over the ABM, the
// NSM hosts and the OSDs. It cuts an object into chunks, compresses, seals and
// encodes them (package object), places the fragments on disks (package
// policy), and finds, checks and opens them again.
//
// A put writes fragments first and commits the manifest last, so that every
// fragment that a manifest names is there:
//
//	draw an object id ─► encode a chunk ─► write its k+m fragments side by side
//	      ▲                                            │ all, or c and no more within the patience
//	      └── the epoch was closed, a disk left ◄── nsm.Put (epoch, id, hash)
//
// What an attempt left that was not committed, no manifest will ever name: its
// gc epoch is closed some day, and maintenance deletes it. Fragments that come
// in after the commit are entered in the manifest late.
//
// A get takes the manifest from memory or the NSM, reads the ranges that it
// needs from the fragment cache or a disk, and checks each 4 KiB against the
// writer's checksums (P2). A range that is slow, missing or bad is made from k
// other fragments; what was found missing or bad is reported (Options.Bad).
package client
