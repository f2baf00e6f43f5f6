package groups

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"openvstorage/arakoon"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// founder is the data directory in which the groups of these tests were made.
var founder = uuid.UUID{0: 0xf0, 15: 1}

// guest is a member of a group that was made elsewhere. Nobody is elsewhere here: without a
// transport the member is a group of its own, which is enough to see what becomes of its files.
var guest = Spec{Name: "g", Member: 7}

// openJoined opens a data directory that holds members of the founder's groups: those that its
// record knows.
func openJoined(fs disk.FS) (*start, error) {
	d, err := datadir.Open(fs, dir)
	if err != nil {
		return nil, err
	}
	var list []Spec
	if record := d.Record(); record.Made(guest.dirName()) {
		list = append(list, guest)
	}
	g, err := Open(ctx, Options{FS: fs, Dir: dir, ID: founder, Host: d.ID, Ledger: d}, list...)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if err := g.Claim(ctx, 0, false); err != nil {
		return nil, errors.Join(err, g.closeNodes(), d.Close())
	}
	return &start{g, d}, nil
}

func TestMakeAndDrop(t *testing.T) {
	mem := crashdisk.New()
	s, err := openJoined(mem)
	must(t, err)
	attached := 0
	spec := guest
	spec.Link.Attach = func(*arakoon.Node) { attached++ }
	must(t, s.Make(ctx, spec))
	must(t, s.Make(ctx, spec)) // a second request is a confirmation
	if attached != 1 || s.Node("g") == nil {
		t.Fatalf("attached %d times", attached)
	}
	s.change(t, "g", "v")
	if err := s.Make(ctx, Spec{Name: "g", Member: 8}); !errors.Is(err, ErrOther) {
		t.Errorf("two members of one group: %v", err)
	}
	if err := s.Make(ctx, Spec{Name: "h", Member: 1}); err == nil {
		t.Error("a first member is made for a group that others made")
	}
	must(t, s.Drop("g", 8)) // it is not here, and number 7 stays
	must(t, s.Close())

	s, err = openJoined(mem)
	must(t, err)
	if got := s.value(t, "g"); got != "v" {
		t.Errorf("after a restart: %q", got)
	}
	must(t, s.Drop("g", 7))
	if s.Node("g") != nil {
		t.Error("it is still there")
	}
	for _, name := range []string{"g.7", "g.7.marks", "g.7" + removing} {
		if _, err := mem.Stat("/data/arakoon/" + name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, s.Make(ctx, Spec{Name: "g", Member: 8}))
	must(t, s.Close())
}

// A member whose files are lost is refused under its old number: by Open, and by Make.
func TestMemberThatIsLost(t *testing.T) {
	mem := crashdisk.New()
	s, err := openJoined(mem)
	must(t, err)
	must(t, s.Make(ctx, guest))
	must(t, s.Close())
	must(t, mem.RemoveAll("/data/arakoon/g.7"))
	if s, err = openJoined(mem); !errors.Is(err, ErrMissing) {
		t.Fatalf("opened: %v", err)
	}
	d, err := datadir.Open(mem, dir)
	must(t, err)
	g := &Groups{opt: Options{FS: mem, Dir: dir, ID: founder, Host: d.ID, Ledger: d}}
	if err := g.Make(ctx, guest); !errors.Is(err, ErrUsed) {
		t.Errorf("made anew: %v", err)
	}
	must(t, d.Close())
}

// The power goes at any operation of Make and Drop. A member that Make has answered is there;
// one that Drop has answered is gone; and whatever was half done, the directory opens, and can
// be brought to either end.
func TestMakeAndDropCutAnywhere(t *testing.T) {
	for _, what := range []string{"make", "drop"} {
		whole := false
		for skip := 0; !whole; skip++ {
			mem := crashdisk.New()
			fsys := faultdisk.New(mem)
			s, err := openJoined(fsys)
			must(t, err)
			if what == "drop" {
				must(t, s.Make(ctx, guest))
			}
			fsys.Inject(faultdisk.Rule{Skip: skip, Err: unix.EIO})
			if what == "make" {
				whole = s.Make(ctx, guest) == nil
			} else {
				whole = s.Drop("g", 7) == nil
			}
			for seed := range uint64(1) {
				cut := mem.Crash(rand.New(rand.NewPCG(seed, uint64(skip))), crashdisk.Mixed)
				if err := afterCut(cut, what, whole); err != nil {
					t.Fatalf("%s, cut after %d operations, seed %d: %v", what, skip, seed, err)
				}
			}
			_ = s.Close()
		}
	}
}

// A Drop that has failed is repeated while the process runs, wherever it failed but in the record.
func TestDropIsRepeated(t *testing.T) {
	failed := 0
	for skip := range 40 {
		fsys := faultdisk.New(crashdisk.New())
		s, err := openJoined(fsys)
		must(t, err)
		must(t, s.Make(ctx, guest))
		fsys.Inject(faultdisk.Rule{Ops: faultdisk.Rename | faultdisk.SyncDir | faultdisk.Remove, Path: "/data/arakoon/...", Skip: skip, Times: 1, Err: unix.EIO})
		if err := s.Drop("g", 7); err != nil {
			failed++
			if s.Holds("g", 7) {
				must(t, s.Drop("g", 7))
			}
		}
		if s.Made("g", 7) || s.Holds("g", 7) {
			t.Errorf("failed after %d operations: the member stays", skip)
		}
		_ = s.Close()
	}
	if failed == 0 {
		t.Error("no Drop has failed")
	}
}

func afterCut(cut *crashdisk.FS, what string, whole bool) error {
	s, err := openJoined(cut)
	if err != nil {
		return err
	}
	defer s.Close()
	switch has := s.Node("g") != nil; {
	case whole && has != (what == "make"):
		return fmt.Errorf("it had been answered, and the member is here: %v", has)
	case has:
		err = s.Drop("g", 7)
	case what == "make": // nothing was answered, and nothing is left that stands in the way
		err = s.Make(ctx, guest)
	}
	if err != nil {
		return err
	}
	return s.Make(ctx, Spec{Name: "h", Member: 3})
}

// aside is the group "a" where its other members are: here a group of its own on another disk.
type aside struct {
	*arakoon.Node
	changes uint64
}

func openAside(t *testing.T, fs disk.FS) *aside {
	t.Helper()
	n, err := arakoon.Open(arakoon.Options{FS: fs, Dir: "/aside", Cluster: founder, Member: 9})
	must(t, err)
	t.Cleanup(func() { _ = n.Close() })
	return &aside{Node: n}
}

// openFounder opens the data directory that the groups were made in, by its record.
func openFounder(fs disk.FS, others *aside) (*start, error) {
	d, err := datadir.Open(fs, dir)
	if err != nil {
		return nil, err
	}
	record := d.Record()
	a := Spec{Name: "a", After: []string{"ovs.format"}, Link: Link{Store: others, Changed: func() uint64 { return others.changes }}}
	switch {
	case record.Made("a.4"):
		a.Member = 4
	case record.Made(AwayName("a")):
		a.Away = true
	case !record.Made("a"):
		a.After = nil // it is made now
	}
	g, err := Open(ctx, Options{FS: fs, Dir: dir, ID: d.ID, Ledger: d}, a, Spec{Name: "b"})
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if err := g.Claim(ctx, 0, false); err != nil {
		return nil, errors.Join(err, g.closeNodes(), d.Close())
	}
	return &start{g, d}, nil
}

// outside tells names that are not of files inside of members: to close one is no part of the
// steps of a Drop.
func outside(name string) bool { return strings.Count(name, "/") < 4 }

// The first host drops its member of a group, and goes on using the group where that is: by its
// record, also after a cut anywhere; and holds another member of it later.
func TestFounderDropsItsMember(t *testing.T) {
	mem, there := crashdisk.New(), crashdisk.New()
	s, err := openFounder(mem, openAside(t, there))
	must(t, err)
	must(t, s.Close())
	before, beside := mem.Kill(), there.Kill()
	for cut := 0; ; cut++ {
		mem, there := before.Kill(), beside.Kill()
		faulty, others := faultdisk.New(mem), openAside(t, there)
		s, err := openFounder(faulty, others)
		must(t, err)
		var image *crashdisk.FS
		left := cut
		var mu sync.Mutex
		faulty.Inject(faultdisk.Rule{Ops: faultdisk.Write | faultdisk.Datasync | faultdisk.Sync | faultdisk.Rename | faultdisk.SyncDir | faultdisk.RemoveAll, Where: outside, Before: func(faultdisk.Op, string) {
			mu.Lock()
			defer mu.Unlock()
			if left--; left < 0 && image == nil {
				image = mem.Crash(rand.New(rand.NewPCG(uint64(cut), 1)), crashdisk.LoseAll)
			}
		}})
		must(t, s.Drop("a", 1))
		faulty.Clear()
		if s.Node("a") != nil || s.User("a") != nil || s.Holds("a", 1) || len(s.Names()) != 1 {
			t.Fatal("it was dropped, and is here")
		}
		whole := image == nil
		if whole {
			image = mem.Kill()
		}
		later := openAside(t, there.Kill())
		others.changes++
		if _, beat, err := s.Beat(ctx); err != nil || !beat { // which writes to the group where it is
			t.Fatalf("claimed: %v, %v", beat, err)
		}
		must(t, s.Close())
		again, err := openFounder(image, later)
		if err != nil {
			t.Fatalf("cut at operation %d: %v", cut, err)
		}
		if record := again.dir.Record(); record.Made("a") == record.Made(AwayName("a")) || !Knows(record, "a") {
			t.Fatalf("cut at operation %d: the record has %v", cut, record.Groups)
		}
		if whole {
			must(t, again.Make(ctx, Spec{Name: "a", Member: 4, Link: Link{Store: later, Changed: func() uint64 { return 0 }}}))
			if record := again.dir.Record(); record.Made(AwayName("a")) || !record.Made("a.4") || !Knows(record, "a") {
				t.Errorf("it holds another member: %v", record.Groups)
			}
		}
		must(t, again.Close())
		if whole {
			break
		}
	}
	if _, err := openFounder(before, openAside(t, crashdisk.New())); !errors.Is(err, ErrOlder) {
		t.Errorf("the group is older where it is: %v", err)
	}
}

// A group that is away, or was dropped, needs a way to the others: none is made in its place.
func TestAwayNeedsOthers(t *testing.T) {
	mem := crashdisk.New()
	s, err := openFounder(mem, openAside(t, crashdisk.New()))
	must(t, err)
	must(t, s.Drop("a", 1))
	must(t, s.Close())
	d, err := datadir.Open(mem, dir)
	must(t, err)
	if _, err := Open(ctx, Options{FS: mem, Dir: dir, ID: d.ID, Ledger: d}, Spec{Name: "a"}, Spec{Name: "b"}); err == nil {
		t.Error("the group was opened")
	}
	if _, err := mem.Stat("/data/arakoon/a"); err == nil {
		t.Error("a group was made in the place of one that is elsewhere")
	}
	must(t, d.Close())
}
