package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"openvstorage/internal/control"
)

// zones are those of the groups, as a host shows them.
func (f *fleet) zones(n int) (list []control.ArakoonZones) {
	f.t.Helper()
	if err := json.Unmarshal([]byte(f.ovs(n, "arakoon", "require-zones", "--json")), &list); err != nil {
		f.t.Fatal(err)
	}
	return list
}

// requires waits until all groups require so many zones.
func (f *fleet) requires(zones int) {
	f.t.Helper()
	f.await(fmt.Sprintf("%d zones are required", zones), func() bool {
		list := f.zones(1)
		ok := len(list) == 3
		for _, g := range list {
			ok = ok && g.InForce && max(g.Required, 1) == zones
		}
		return ok
	})
}

// Two zones, of which both must hold everything: without one of them nothing is answered, and
// who asks is told which one is missing and what to do. On the word of a person that it is off
// the others go on; that is recorded, and shown. When it is back two zones can be required again.
func TestTwoZones(t *testing.T) {
	f := newFleet(t)
	f.zone = map[int]string{1: "north", 2: "south", 3: "north"}
	f.flags = map[int][]string{1: {"--require-zones", "2"}}
	f.up(1)
	if s := f.ovs(1, "status"); !strings.Contains(s, "2 zones are asked for") && !strings.Contains(s, "none is known yet") {
		t.Errorf("with one host: %s", s)
	}
	f.join(2)
	f.join(3)
	f.three()
	f.requires(2)
	f.await("status says so", func() bool { return strings.Contains(f.ovs(1, "status"), "everything is held in 2 zones") })
	if out, err := f.try(1, "arakoon", "require-zones", "3"); err == nil || !strings.Contains(err.Error(), "in 2: north, south") {
		t.Errorf("three of two zones: %s, %v", out, err)
	}
	if out, err := f.try(1, "recover", "--require-zones", "1", "--yes"); err == nil || !strings.Contains(err.Error(), "hears from all zones") {
		t.Errorf("while both zones are there: %s, %v", out, err)
	}
	f.ovs(1, "vdisk", "create", "before", "--size", "1MiB")
	f.kill(2)
	if out, err := f.try(1, "arakoon", "require-zones", "1"); err == nil || !strings.Contains(err.Error(), "south") || !strings.Contains(err.Error(), "ovs recover --require-zones 1") {
		t.Errorf("it was lowered without the other zone: %s, %v", out, err)
	}
	f.ovs(1, "recover", "--require-zones", "1", "--yes")
	f.ovs(1, "vdisk", "create", "alone", "--size", "1MiB")
	for _, g := range f.zones(1) {
		if g.Required != 1 || !g.Asserted || g.From != 2 || g.Lowered == 0 {
			t.Errorf("%+v", g)
		}
	}
	if s := f.ovs(1, "status"); !strings.Contains(s, "2 zones were required until") {
		t.Errorf("the lowering is not shown: %s", s)
	}
	f.up(2)
	f.await("two zones", func() bool {
		_, err := f.try(1, "arakoon", "require-zones", "2")
		return err == nil
	})
	f.requires(2)
	f.ovs(1, "vdisk", "create", "after", "--size", "1MiB")
}

// Three zones, of which two must hold everything: each may die in turn, and all go on.
func TestThreeZones(t *testing.T) {
	f := newFleet(t)
	f.flags = map[int][]string{1: {"--require-zones", "2"}}
	f.up(1)
	f.join(2)
	f.join(3)
	f.three()
	f.requires(2)
	for _, n := range []int{2, 3, 1} {
		f.kill(n)
		if n != 1 { // the vDisks are on the first host in this release
			f.ovs(1, "vdisk", "create", fmt.Sprintf("without%d", n), "--size", "1MiB")
		}
		f.up(n)
		f.ovs(1, "vdisk", "create", fmt.Sprintf("with%d", n), "--size", "1MiB")
		f.requires(2)
	}
}
