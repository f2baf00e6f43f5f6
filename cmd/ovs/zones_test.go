package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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

// in is the UUID of the only host of a zone that is of the cluster.
func (f *fleet) in(n int, zone string) (id string) {
	f.t.Helper()
	for _, h := range f.hosts(n) {
		if h.Zone == zone && h.State == "joined" {
			id = h.ID.String()
		}
	}
	return id
}

// Two zones, of which both must hold everything: without one of them nothing is answered, and
// who asks is told which one is missing and what to do. On the word of a person that it is off
// the others go on; that is recorded, and shown. The host of the zone is given up with it: when it
// comes back it is refused, serves nothing, and cannot become a group of its own. With another
// host in its zone two zones can be required again.
func TestTwoZones(t *testing.T) {
	f := newFleet(t)
	f.zone = map[int]string{1: "north", 2: "south", 3: "north", 4: "south"}
	f.flags = map[int][]string{1: {"--require-zones", "2"}}
	f.up(1)
	f.await("with one host it waits for others", func() bool { return strings.Contains(f.ovs(1, "status"), "2 zones are asked for") })
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
	lost := f.in(1, "south")
	f.loseZone(lost)
	f.returns(lost)

	f.join(4)
	f.await("two zones", func() bool {
		_, err := f.try(1, "arakoon", "require-zones", "2")
		return err == nil
	})
	f.requires(2)
	f.ovs(1, "vdisk", "create", "after", "--size", "1MiB")
}

// loseZone ends host 2, the only one of its zone, and has the others go on without it.
func (f *fleet) loseZone(lost string) {
	f.t.Helper()
	_ = f.host[2].cmd.Process.Signal(syscall.SIGSTOP) // it takes connections, and says nothing
	f.await("the host that stands still is not taken for one that is off", func() bool {
		_, err := f.try(1, "recover", "--require-zones", "1", "--yes")
		return err != nil && strings.Contains(err.Error(), lost+" of zone south is not off")
	})
	f.kill(2)
	if out, err := f.try(1, "arakoon", "require-zones", "1"); err == nil || !strings.Contains(err.Error(), "south") || !strings.Contains(err.Error(), "ovs recover --require-zones 1") {
		f.t.Errorf("it was lowered without the other zone: %s, %v", out, err)
	}
	if out, err := f.try(1, "recover", "--require-zones", "1"); err == nil || !strings.Contains(err.Error(), "nothing was changed") || !strings.Contains(out, lost) {
		f.t.Errorf("nobody has typed anything: %s, %v", out, err)
	}
	if out := f.ovs(1, "recover", "--require-zones", "1", "--yes"); !strings.Contains(out, "host "+lost) {
		f.t.Errorf("it does not say which host is given up: %s", out)
	}
	f.ovs(1, "vdisk", "create", "alone", "--size", "1MiB")
	for _, g := range f.zones(1) {
		if g.Required != 1 || !g.Asserted || g.From != 2 || g.Lowered == 0 {
			f.t.Errorf("%+v", g)
		}
	}
	if s := f.ovs(1, "status"); !strings.Contains(s, "2 zones were required until") {
		f.t.Errorf("the lowering is not shown: %s", s)
	}
	if out, err := f.try(1, "recover", "--require-zones", "1", "--yes"); err == nil || !strings.Contains(err.Error(), "no group requires more") {
		f.t.Errorf("it was done already: %s, %v", out, err)
	}
	if id := f.in(1, "south"); id != "" {
		f.t.Errorf("host %s is of the cluster still", id)
	}
}

// returns has host 2 come back after it was given up.
func (f *fleet) returns(lost string) {
	f.t.Helper()
	err := f.within(2, "", 5*time.Second)
	if err == nil {
		f.await("others refuse the host by name", func() bool {
			out := f.host[1].out.String() + f.host[3].out.String()
			return strings.Contains(out, "of host "+lost) && strings.Contains(out, "given up with its zone")
		})
		for _, args := range [][]string{{"vdisk", "create", "elsewhere", "--size", "1MiB"}, {"arakoon", "set", "registry", "test/a", "1"}, {"host", "token"}} {
			if out, err := f.try(2, args...); err == nil {
				f.t.Errorf("the host serves %v: %s", args, out)
			}
		}
		f.kill(2)
	} else if !strings.Contains(err.Error(), "removed") {
		f.t.Errorf("the host does not say why it does not serve: %v", err)
	}
	if out, err := f.try(2, "recover", "--yes"); err == nil || !strings.Contains(err.Error(), "needs no recovery") {
		f.t.Errorf("it becomes a second group: %s, %v", out, err)
	}
	f.await("its members are made anew, or dropped", func() bool {
		for _, h := range f.hosts(1) {
			if h.ID.String() == lost && len(h.Members) > 0 {
				return false
			}
		}
		return true
	})
}

// Of two zones that must both hold everything, the one with the majority is destroyed under
// writes. The host of the other one goes on by `ovs recover`, and has all that was answered.
func TestRecoverMinorityZone(t *testing.T) {
	f := newFleet(t)
	f.zone = map[int]string{1: "north", 2: "south", 3: "north"}
	f.flags = map[int][]string{1: {"--require-zones", "2"}}
	f.up(1)
	f.join(2)
	f.join(3)
	f.three()
	f.requires(2)
	f.holds(2)

	enough := make(chan struct{})
	answered := f.create(func(n int) {
		if n == 8 {
			close(enough)
		}
	})
	<-enough
	f.kill(1)
	f.kill(3)
	names := <-answered
	for _, n := range []int{1, 3} {
		if err := os.RemoveAll(f.data(n)); err != nil {
			t.Fatal(err)
		}
	}
	f.kill(2)
	out := f.ovs(2, "recover", "--yes")
	if strings.Count(out, "each of 2 zones had to hold it first") != 3 {
		t.Errorf("it does not say that nothing is missing: %s", out)
	}
	files, err := filepath.Glob(filepath.Join(f.data(2), "arakoon", "registry.?"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	state := f.ovs(2, "arakoon", "dump", "state", files[0], "--bytes", "-1")
	for _, name := range names {
		if !strings.Contains(state, name) {
			t.Errorf("vDisk %s was answered, and is not there", name)
		}
	}
	f.up(2)
	f.await("the lost hosts are given up", func() bool { return strings.Count(f.ovs(2, "host", "list"), "removed") == 2 })
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
