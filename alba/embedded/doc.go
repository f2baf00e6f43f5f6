// Package embedded is a whole ALBA backend in one process: ASDs in directories,
// the ABM and one NSM host, each on an Arakoon cluster of one member, a client,
// and maintenance. No sockets lie between them; every part is the one that also
// runs as a process of its own.
//
// A data directory DIR holds
//
//	DIR/arakoon/abm     disks, presets, namespaces
//	DIR/arakoon/nsm-0   objects
//	DIR/asd/0..n        ASDs, unless they have directories elsewhere
//	DIR/cache           fragment cache; may be deleted while nothing runs
//	DIR/scrub           how far the scrub is; likewise
//
// The ABM is the record of which disks there are. At the first start they are
// registered there, then made, then claimed, and the default preset is set last
// of all: from then on no ASD is ever made but by AddOSD and ReplaceOSD. One that
// the record names and that is not there is missing until it is back, and is
// looked for all the time.
package embedded
