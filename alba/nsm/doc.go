// Package nsm is the namespace manager: the objects of each namespace, by
// name and by id, where their fragments are, and which fragments are to be
// deleted. It is a set of deterministic user functions on Arakoon (Functions),
// and a Client that calls them and reads the keys that they keep.
//
// One Arakoon cluster that runs these functions is an NSM host. It serves
// many namespaces, told apart by the number that the ABM gave them. It learns of
// namespaces and OSDs only from the ABM's numbered messages, each of which is
// applied once and in order.
//
// A manifest is opaque bytes here. What the manager must know of it travels
// beside it in an Object. The following holds after every call, and Check
// verifies it:
//
//   - Every object is in each index that it belongs to, and each index entry
//     and counter belongs to an object.
//   - A fragment is either named by an object, or to be deleted, or was never
//     committed. Its key (object id, chunk, fragment, version) is used once: an
//     object id that left the namespace is remembered while a gc epoch of that
//     time is open, and a fragment that replaces another has the object's next
//     revision as its version.
//   - An object version is used once in a namespace's life.
//
// There are two fences. An upload or a repair names the gc epoch under which it
// wrote its fragments, and is refused once that epoch is closed. So a fragment of a
// closed epoch that no object names is garbage. A repair also names the revision
// that it read, and is refused if the fragments were changed meanwhile.
//
// A namespace can move to another NSM host while it is used, or come to one from the disks when
// its host was lost: see move.go. Several objects are put and deleted together by a sequence
// with assertions. These functions have level 4 (userfn.LevelHosts).
//
// Keys, numbers big-endian so that they sort. Values are records of package
// record, version 1; of a namespace that has moved version 2:
//
//	nsm/H                              host: number of the last message applied
//	nsm/N ns8                          namespace: state, epochs, next version, totals
//	nsm/E ns8 name                     object, with its manifest
//	nsm/I ns8 id16                     name of the object; for an id that left the
//	                                   namespace, the newest epoch at that time
//	nsm/B ns8 k1 m1 present1 name      the object is below full width, in the bucket
//	                                   (empty record)
//	nsm/C ns8 k1 m1 present1           number of objects in the bucket
//	nsm/U ns8 osd8                     fragments and bytes of the namespace on the OSD
//	nsm/T ns8 epoch8 id16              the ids that left, by that epoch (empty record)
//	nsm/O osd8                         OSD: state, node
//	nsm/S osd8                         fragments and bytes on the OSD, and those to delete
//	nsm/X osd8 ns8 id16 chunk4 fragment2 version4
//	                                   fragment to delete: length
//	nsm/J ns8 change8                  name of an object that has changed while the
//	                                   namespace is being copied (bare)
//
// A counter of nothing has no key. So an object at full width takes two keys of its
// own, and shares the counters with all others. The counters say whether any object
// has fragments on an OSD; which ones do is found by going over the objects.
package nsm
