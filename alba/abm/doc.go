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
// OSDs live so:
//
//	available ──claim──► active ──decommission──► draining ──purge──► gone
//	                       └────────lose─────────► lost ─────purge──► gone
//
// A claim gives an OSD a number, which is used once. Manifests name OSDs by this
// number, not by device. Draining OSDs hold fragments and get no new ones. What lost
// OSDs held is repaired from others. Replace claims a device in place of a lost one,
// under a number of its own.
//
// Keys, numbers big-endian so that they sort. Values are records of package
// record, version 1:
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
package abm
