// Package client is ALBA's client: it implements backend.Store over the ABM, the
// NSM hosts and the OSDs. It cuts an object into chunks, compresses, seals and
// encodes the chunks (package object), and places their fragments on disks (package
// policy). It finds the fragments again, checks them, and opens the chunks.
//
// A put writes fragments first and commits the manifest last, so that every
// fragment that a manifest names is there:
//
//	draw an object id ─► encode a chunk ─► write its k+m fragments side by side
//	      ▲                                            │ all, or c and no more within the patience
//	      └── the epoch was closed, a disk left ◄── nsm.Put (epoch, id, hash)
//
// No manifest ever names the fragments of an attempt that was not committed:
// maintenance deletes them once their gc epoch is closed. Fragments that become
// durable after the commit are entered in the manifest late.
//
// A get takes the manifest from memory or the NSM, reads the ranges that it
// needs from the fragment cache or a disk, and checks each 4 KiB against the
// writer's checksums (P2). A range that is slow, missing or bad is made from k
// other fragments. A fragment that was found missing or bad is reported
// (Options.Bad).
//
// A Client ties four parts, each with its own state: spaces (the namespaces that
// it knows), manifests, reader and writer.
package client
