package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// checkpointOf fills a state and returns the disk, with a checkpoint of it in /copy.
func checkpointOf(t *testing.T) (d *crashdisk.FS, at Position) {
	t.Helper()
	d = crashdisk.New()
	s := openOnly(t, d)
	for i := range 20 {
		apply(t, s, Command{Body: body(t, new(Sequence).Set(fmt.Appendf(nil, "k%d", i), bytes.Repeat([]byte("v"), 1000)))})
	}
	if err := s.Checkpoint("/copy"); err != nil {
		t.Fatal(err)
	}
	at = s.Applied()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return d, at
}

func adoptOptions(d disk.FS) Options {
	return Options{FS: d, Dir: "/copy", Cluster: testCluster, Member: 8, Life: 2, Generation: 5, MemTableBytes: 256 << 10, CacheBytes: 1 << 20}
}

// Another member's checkpoint becomes this member's state, with all that it held.
func TestAdopt(t *testing.T) {
	d, want := checkpointOf(t)
	at, err := Adopt(t.Context(), adoptOptions(d))
	if err != nil || at.Index != want.Index || at.Term != want.Term || at.Conf.String() != want.Conf.String() {
		t.Fatalf("%+v, not %+v: %v", at, want, err)
	}
	o := adoptOptions(d.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll))
	if _, err := o.FS.Stat("/copy"); err != nil {
		t.Fatal(err)
	}
	o.Functions = testFunctions(t)
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if v, _, err := s.Get([]byte("k19")); err != nil || len(v) != 1000 {
		t.Fatalf("%d bytes, %v", len(v), err)
	}
	if life, generation := s.Lineage(); life != 2 || generation != 5 || s.Durable().Index != want.Index {
		t.Errorf("life %d, generation %d, durable up to %d", life, generation, s.Durable().Index)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.Member = 3
	if _, err := Open(o); !errors.Is(err, ErrIdentity) {
		t.Errorf("it is still the other member's: %v", err)
	}
}

// What is not a state of this cluster and life is refused by name.
func TestAdoptRefuses(t *testing.T) {
	d, _ := checkpointOf(t)
	o := adoptOptions(d)
	o.Cluster = uuid.New()
	if _, err := Adopt(t.Context(), o); !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), o.Cluster.String()) || !strings.Contains(err.Error(), "/copy") {
		t.Error(err)
	}
	if _, err := Adopt(t.Context(), adoptOptions(d)); err != nil {
		t.Fatal(err)
	}
	o = adoptOptions(d)
	o.Life = 1
	if _, err := Adopt(t.Context(), o); !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), "life 2") {
		t.Error(err)
	}
	o = adoptOptions(d)
	o.Dir = "/empty"
	if err := d.MkdirAll(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(t.Context(), o); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "/empty") {
		t.Error(err)
	}
	names, err := d.ReadDir("/copy")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasPrefix(n, "marker.manifest.") {
			if err := d.Remove(path.Join("/copy", n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := Adopt(t.Context(), adoptOptions(d)); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

// On a full disk it waits, says so, and ends when it is told to.
func TestAdoptWaitsForRoom(t *testing.T) {
	d, _ := checkpointOf(t)
	faults := faultdisk.New(d)
	o := adoptOptions(faults)
	ctx, cancel := context.WithCancel(t.Context())
	o.OnFull = func(error) { cancel() }
	faults.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: "*.sst", Err: unix.ENOSPC})
	if at, err := Adopt(ctx, o); !errors.Is(err, context.Canceled) || at.Index != 0 {
		t.Fatalf("%+v, %v", at, err)
	}
}

// A disk that fails ends it, with what failed.
func TestAdoptFails(t *testing.T) {
	for _, op := range []faultdisk.Op{faultdisk.Write, faultdisk.Datasync | faultdisk.Sync, faultdisk.SyncDir, faultdisk.Rename} {
		d, _ := checkpointOf(t)
		faults := faultdisk.New(d)
		bad := errors.New("bad disk")
		faults.Inject(faultdisk.Rule{Ops: op, Path: "/copy/...", Err: bad})
		if _, err := Adopt(t.Context(), adoptOptions(faults)); !errors.Is(err, bad) || !strings.Contains(err.Error(), "/copy") {
			t.Errorf("%v: %v", op, err)
		}
	}
}
