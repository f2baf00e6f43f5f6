package main

import (
	"fmt"
	"slices"

	"openvstorage/fusefs/transport"
)

// fuseWays is the value of --fuse.
type fuseWays struct {
	ways transport.Ways
	set  bool
}

var fuseWayNames = []string{transport.BestWay: "auto", transport.NoRing: "device", transport.RingOnly: "ring"}

// String implements pflag.Value.
func (w *fuseWays) String() string { return fuseWayNames[w.ways] }

// Type implements pflag.Value.
func (w *fuseWays) Type() string { return "way" }

// Set implements pflag.Value.
func (w *fuseWays) Set(s string) error {
	i := slices.Index(fuseWayNames, s)
	if i < 0 {
		return fmt.Errorf("give auto, device or ring")
	}
	w.ways, w.set = transport.Ways(i), true
	return nil
}
