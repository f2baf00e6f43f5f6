package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openvstorage/internal/control"
)

// osds are the disks of the backend, as host 1 shows them.
func (f *fleet) osds() (list []control.OSD) {
	f.t.Helper()
	if err := json.Unmarshal([]byte(f.ovs(1, "alba", "osd", "list", "--json")), &list); err != nil {
		f.t.Fatal(err)
	}
	return list
}

// well waits until the backend has so many disks, which are all well.
func (f *fleet) well(disks int) {
	f.t.Helper()
	f.await(fmt.Sprintf("%d disks are well", disks), func() bool {
		list := f.osds()
		for _, o := range list {
			if o.State != "ok" {
				return false
			}
		}
		return len(list) == disks
	})
}

// disk is the directory of a disk of a host.
func (f *fleet) disk(n int) string { return filepath.Join(f.dir, fmt.Sprintf("disk%d", n)) }

// joinWithDisk has a new host join that has a disk of its own.
func (f *fleet) joinWithDisk(n int) {
	f.t.Helper()
	if err := f.start(n, strings.TrimSpace(f.ovs(1, "host", "token")), "--asd", f.disk(n)); err != nil {
		f.t.Fatalf("host %d: %v", n, err)
	}
}

// whole waits until every object is at full width.
func (f *fleet) whole() {
	f.t.Helper()
	f.await("all objects are at full width", func() bool {
		var s struct {
			Narrow  uint64 `json:"below_full_width"`
			Objects uint64 `json:"objects"`
		}
		if err := json.Unmarshal([]byte(f.ovs(1, "alba", "backend", "status", "--json")), &s); err != nil {
			f.t.Fatal(err)
		}
		return s.Objects > 0 && s.Narrow == 0
	})
}

// more waits until more was written and read back.
func (w *writer) more(f *fleet) {
	f.t.Helper()
	before := w.rounds.Load()
	f.await("reads and writes go on", func() bool { return w.rounds.Load() > before+3 })
}

// The disks of joined hosts are disks of the backend: with one fragment of each object in each
// host, a host that is killed stops neither reads nor writes. It is shown as away, by name, and
// when it is back all objects are made whole again. It needs no --asd then.
func TestDisksOfJoinedHosts(t *testing.T) {
	f := newFleet(t)
	f.flags = map[int][]string{1: {"--asds", "1", "--policy", "2,1,2,1", "--write-buffer", "64MiB"}}
	f.up(1)
	f.joinWithDisk(2)
	f.joinWithDisk(3)
	f.three()
	f.well(3)
	nodes := make(map[string]bool)
	for _, o := range f.osds() {
		nodes[o.Node] = true
	}
	if len(nodes) != 3 {
		t.Errorf("the disks are on %d hosts", len(nodes))
	}
	f.ovs(1, "vdisk", "create", "d", "--size", "64MiB")
	w := f.write("d")
	w.more(f)
	f.kill(3)
	w.more(f)
	f.await("the disk of the host that is away is missing, and says of which host", func() bool {
		for _, o := range f.osds() {
			if o.State == "missing" && strings.Contains(o.Reason, "host "+o.Node) {
				return true
			}
		}
		return false
	})
	f.ovs(1, "vdisk", "snapshot", "create", "d", "s")
	w.more(f)
	f.up(3)
	f.well(3)
	w.more(f)
	w.end(t)
	f.ovs(1, "vdisk", "sync", "d")
	f.whole()

	// The first host starts anew: its disks of other hosts are there again.
	f.kill(1)
	f.up(1)
	f.well(3)
	w = f.write("d")
	w.more(f)
	w.end(t)
	f.refusals()
}

// refusals gives host 3 directories that it must not take, one after the other. It changes
// nothing in them, and goes on with its own disk.
func (f *fleet) refusals() {
	f.t.Helper()
	f.kill(3)
	f.refused(f.disk(2), "put it back into that host") // host 2 has it open
	f.refused(f.data(1), "not empty")
	f.refused(filepath.Join(f.data(1), "asd", "0"), "put it back into that host")
	f.refused("/mnt/nothing-is-mounted-here", "looks like a mount point")

	// Its own disk is taken away, and its place is empty.
	aside := f.disk(3) + ".aside"
	if err := errors.Join(os.Rename(f.disk(3), aside), os.Mkdir(f.disk(3), 0o700)); err != nil {
		f.t.Fatal(err)
	}
	if err := f.start(3, "", "--asd", f.disk(3)); err != nil { // as a unit has it: the host goes on without the disk
		f.t.Fatal(err)
	}
	f.await("the disk is missing", func() bool {
		return slices.ContainsFunc(f.osds(), func(o control.OSD) bool { return o.State == "missing" })
	})
	f.kill(3)
	if names, err := os.ReadDir(f.disk(3)); err != nil || len(names) > 0 {
		f.t.Errorf("in the place of a disk that was taken away something was made: %v, %v", names, err)
	}
	if err := errors.Join(os.Remove(f.disk(3)), os.Rename(aside, f.disk(3))); err != nil {
		f.t.Fatal(err)
	}
	f.up(3)
	f.well(3)
}

// refused starts host 3 with a directory for an ASD, which must end it with these words.
func (f *fleet) refused(dir, words string) {
	f.t.Helper()
	err := f.within(3, "", startTimeout, "--asd", dir)
	if err == nil { // it looks when the ABM has answered
		p := f.host[3]
		f.await("host 3 ends", func() bool {
			select {
			case <-p.exited:
				return true
			default:
				return false
			}
		})
		err = errors.New(p.out.String())
		delete(f.host, 3)
	}
	if !strings.Contains(err.Error(), words) {
		f.t.Errorf("%s is not refused with %q: %v", dir, words, err)
	}
}
