// Package policy says how far an object is spread: k data and m parity fragments,
// accepted when c of them are stored, at most x on one node. The decisions that follow
// from that are here: which policy of a list the disks at hand can keep ([Choose]), which
// disk takes which fragment ([Place]), how much more may die ([SafetyOf]), and whether
// an object should be stored anew under another policy ([Better]).
//
// Everything here is a pure function of values. Callers pass chance in.
//
// x counts fragments on one node, and all disks of one machine are on one node. A store
// on one machine therefore needs an x as large as the number of fragments of a chunk:
// 2,1,2,3 works on three disks of one machine, 2,1,2,1 only on three machines.
//
// x must hold. That no zone has more than m fragments of a chunk, so that any zone may die,
// is a wish: there may be too few zones, and an object must be stored all the same. Manifests
// and presets say nothing of zones; whoever places a fragment wishes for it.
package policy
