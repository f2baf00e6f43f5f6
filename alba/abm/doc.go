// Package abm is the backend manager: the OSDs of a backend, its presets, its
// namespaces and the NSM hosts that keep their objects. It is a set of
// deterministic user functions on Arakoon (Functions), and a Client that calls
// them and reads the keys that they keep.
//
// The manager is passive. For each NSM host it keeps a numbered queue of messages
// with what the host must learn. Whoever made the change, or maintenance, carries
// the messages to the host and reports back (Client.Messages, nsm.Client.Deliver,
// Client.MarkDelivered). A message may be carried twice, and is applied once.
//
// OSDs live so; a drain can be cancelled, and a disk may come to another node or slot (MoveOSD):
//
//	available ──claim──► active ──decommission──► draining ──purge──► gone
//	                       └────────lose─────────► lost ─────purge──► gone
//
// A claim gives an OSD a number, which is used once. Manifests name OSDs by this
// number, not by device. Draining OSDs hold fragments and get no new ones. What lost
// OSDs held is repaired from others. Replace claims a device in place of a lost one,
// under a number of its own.
//
// What follows is for backends of many hosts. Its functions have level 4 (userfn.LevelHosts):
// a group is raised to it when every member knows it, a group of one member by itself. An
// NSM host's group must have that level too before messages of the new kinds can be delivered
// to it.
//
// Zones hang on nodes: an OSD has the zone of its node's record.
//
// NSM hosts are open, retired or lost. What is lost stays lost, gets no messages, and its
// namespaces are recovered on other hosts. A host without namespaces can be removed. What it
// had on its list of fragments to be deleted is found as orphans then.
//
// Namespaces live so. Each new host of a namespace is a generation of it, which is never used
// again; a call that names another generation is refused.
//
//	creating ──► active ──BeginMove──► moving ──Mover.Move, Mover.Cancel──► active
//	               └─host lost: RecoverNamespace─► recovering ──ServeRecovered──► active
//
// How a move loses nothing and never has two hosts serve is in move.go of package nsm. Clients
// follow (Client.Follow).
//
// The work queue (Queue) gives each item to one holder at a time, under a fence that rises from
// holder to holder. A holder shows that it lives by a beat. Whoever sees the beat stand still
// for as long as was agreed on, by their own monotonic clock, takes the item over. Items are done
// more than once at times, so doing one twice must be as good as once. Jobs are progress that
// is replaced by compare-and-swap.
//
// Keys, numbers big-endian so that they sort. Values are records of package
// record, version 1; of an OSD with a zone, a lost host, a namespace with a generation and a
// message of many hosts version 2:
//
//	abm/B               backend: id, next numbers, default preset
//	abm/O longid16      OSD
//	abm/N number8       long id of the OSD with the number (bare)
//	abm/P name          preset: version, uses, bytes
//	abm/A name          number of the namespace with the name
//	abm/S number8       namespace
//	abm/H host8         NSM host: name, endpoint, namespaces, message numbers
//	abm/G name          number of the NSM host with the name
//	abm/M host8 number8 message (nsm.Message) that is not delivered yet
//	abm/L name          lease: counter, holder
//	abm/K key8          check value of the master key with the number
//	abm/V name          node: name, zone
//	abm/W number8       item of work
//	abm/Q name          number of the item with the name
//	abm/Y number8       the item waits (bare)
//	abm/T               work queue: last number, last fence, items, failed items
//	abm/J name          job: version, progress
package abm
