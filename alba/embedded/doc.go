// Package embedded is a whole ALBA backend in one process: ASDs in directories, the
// ABM and one NSM host, each on an Arakoon cluster of one member, a client, and
// maintenance. They call each other without sockets.
//
// A data directory DIR holds
//
//	DIR/arakoon/abm     disks, presets, namespaces
//	DIR/arakoon/nsm-0   objects
//	DIR/asd/0..n        ASDs, unless they have directories elsewhere
//	DIR/cache           fragment cache; may be deleted while nothing runs
//	DIR/scrub           progress of the scrub; likewise
//
// The ABM is the record of which disks there are. The first start registers each disk
// in the ABM, then makes it, then claims it, and sets the default preset last of all.
// From then on only AddOSD and ReplaceOSD make ASDs. A recorded disk that is not there
// is missing until it is back, and is looked for every second.
//
// A [Backend] ties parts that own their state, each in a file of its name. For disks:
//
//	errands      work in the directory of a disk, which may hang
//	places       the directories in which disks are
//	generations  which of two copies is the newer one
//	asdSet       the ASDs that are open, or are being opened
//	decisions    changes that the ABM decides and others follow
//	[Membership] disks that are added, replaced and removed
//
// For what is stored on them:
//
//	[PresetStore], keyring   presets, and the master keys that they name
//	[Inventory], census      namespaces, objects, and how much they may lose
//	[DiskReport]             how the disks are
package embedded
