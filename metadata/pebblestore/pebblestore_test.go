package pebblestore

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"openvstorage/internal/disk/osdisk"
	"openvstorage/internal/disk/pebblefs"
	"openvstorage/metadata"
	"openvstorage/sco"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"
)

var (
	ctx   = context.Background()
	owner = uuid.UUID{1}
)

func open(t *testing.T, fs vfs.FS) *Store {
	t.Helper()
	s, err := Open(fs, "pages", Options{Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func encoded(number, seq uint64) metadata.EncodedPage {
	w := [512]uint64{5: uint64(sco.At(0, sco.Number(number), 1))}
	return metadata.EncodedPage{Number: number, Bytes: metadata.AppendPage(nil, owner, number, metadata.PageHeader{Birth: 1, Seq: seq}, &w)}
}

func save(t *testing.T, s *Store, pages ...metadata.EncodedPage) {
	t.Helper()
	if err := s.SavePages(ctx, owner, pages); err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, s *Store, o uuid.UUID, from, to uint64) (out []uint64) {
	t.Helper()
	if err := s.ListPages(ctx, o, from, to, func(n uint64) bool { out = append(out, n); return true }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStore(t *testing.T) {
	s := open(t, vfs.NewMem())
	defer s.Close()
	var pages []metadata.EncodedPage
	for n := range uint64(1000) {
		pages = append(pages, encoded(n+1, n))
	}
	save(t, s, pages...)
	got, err := s.LoadPage(ctx, owner, 77, make([]byte, 0, metadata.MaxPageSize))
	if err != nil || !slices.Equal(got, pages[76].Bytes) {
		t.Fatalf("%v", err)
	}
	save(t, s, encoded(77, 12345))
	if got, err = s.LoadPage(ctx, owner, 77, nil); err != nil || slices.Equal(got, pages[76].Bytes) {
		t.Errorf("page 77 was not replaced: %v", err)
	}
	for _, n := range []uint64{0, 1001, math.MaxUint64} {
		if _, err := s.LoadPage(ctx, owner, n, nil); !errors.Is(err, metadata.ErrPageNotFound) {
			t.Errorf("page %d: %v", n, err)
		}
	}
	if _, err := s.LoadPage(ctx, uuid.UUID{2}, 77, nil); !errors.Is(err, metadata.ErrPageNotFound) {
		t.Errorf("page of another owner: %v", err)
	}
	for _, r := range [][2]uint64{{10, 12}, {100, 900}, {950, math.MaxUint64}, {5, 5}} {
		if err := s.DeletePages(ctx, owner, r[0], r[1]); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := list(t, s, owner, 8, 102), 90; len(got) != want || got[0] != 8 || got[2] != 12 {
		t.Errorf("listed %d pages, not %d: %v", len(got), want, got)
	}
	if got := list(t, s, owner, 890, 2000); len(got) != 50 {
		t.Errorf("listed %d pages", len(got))
	}
}

func TestOneBadPageIsCorruptNotMissing(t *testing.T) {
	s := open(t, vfs.NewMem())
	defer s.Close()
	e := encoded(3, 1)
	save(t, s, metadata.EncodedPage{Number: 4, Bytes: e.Bytes}) // page 3 under the name of 4
	if _, err := s.LoadPage(ctx, owner, 4, nil); !errors.Is(err, metadata.ErrPageCorrupt) {
		t.Errorf("%v", err)
	}
}

// A crash keeps all that was flushed and, of the rest, nothing or a prefix in
// order: never a page from before a deletion that something flushed followed.
func TestCrashKeepsWhatWasFlushed(t *testing.T) {
	for seed := range uint64(10) {
		fs := vfs.NewCrashableMem()
		s := open(t, fs)
		save(t, s, encoded(1, 1), encoded(2, 1), encoded(3, 1))
		if err := s.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		if err := s.DeletePages(ctx, owner, 2, math.MaxUint64); err != nil {
			t.Fatal(err)
		}
		save(t, s, encoded(2, 9))
		if seed%2 == 0 {
			if err := s.Flush(ctx); err != nil {
				t.Fatal(err)
			}
		}
		save(t, s, encoded(8, 9))
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(seed, 1))})
		s.Close()
		s = open(t, crashed)
		got := list(t, s, owner, 0, 100)
		for _, n := range got {
			if _, err := s.LoadPage(ctx, owner, n, nil); err != nil {
				t.Errorf("seed %d: page %d: %v", seed, n, err)
			}
		}
		if want := []uint64{1, 2}; seed%2 == 0 && !slices.Equal(got[:2], want) {
			t.Errorf("seed %d: flushed pages are %v, not %v", seed, got, want)
		}
		if want := []uint64{1, 2, 3}; seed%2 == 1 && !slices.Equal(got, want) {
			t.Errorf("seed %d: pages are %v, not %v", seed, got, want)
		}
		s.Close()
	}
}

// A store with an OPTIONS file that has grown is refused by name, unread.
func TestOpenRefusesGrownOptions(t *testing.T) {
	dir := t.TempDir()
	fs := pebblefs.New(osdisk.New(), pebblefs.Options{})
	s, err := Open(fs, dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	grown, err := filepath.Glob(dir + "/OPTIONS-*")
	if err != nil || len(grown) != 1 || os.Truncate(grown[0], 6<<30) != nil {
		t.Fatal(grown, err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = Open(fs, dir, Options{})
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), grown[0]+": 6442450944 bytes") {
		t.Fatal(err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 32<<20 {
		t.Errorf("it took %d bytes of memory to say so", took)
	}
}

func TestOpenRefusesACorruptStore(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	save(t, s, encoded(1, 1))
	if err := s.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("pages")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasSuffix(n, ".sst") {
			if err := fs.Remove("pages/" + n); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s, err := Open(fs, "pages", Options{}); err == nil {
		_, err = s.LoadPage(ctx, owner, 1, nil)
		t.Fatalf("opened without its tables; load says %v", err)
	}
	if err := fs.RemoveAll("pages"); err != nil {
		t.Fatal(err)
	}
	s = open(t, fs)
	defer s.Close()
	if _, err := s.LoadPage(ctx, owner, 1, nil); !errors.Is(err, metadata.ErrPageNotFound) {
		t.Errorf("after starting anew: %v", err)
	}
}

func TestGivingUpIsSaidOnceAndKept(t *testing.T) {
	s := open(t, vfs.NewMem())
	said := make(chan error, 2)
	s.fatal = func(err error) { said <- err }
	for range 2 {
		go (*logger)(s).Fatalf("manifest write: %v", errors.New("EIO"))
	}
	if err := <-said; !errors.Is(err, ErrFailed) {
		t.Errorf("%v", err)
	}
	_, err := s.LoadPage(ctx, owner, 1, nil)
	for op, err := range map[string]error{
		"load": err, "save": s.SavePages(ctx, owner, []metadata.EncodedPage{encoded(1, 1)}), "flush": s.Flush(ctx),
		"delete": s.DeletePages(ctx, owner, 0, 1), "list": s.ListPages(ctx, owner, 0, 1, nil), "close": s.Close(),
	} {
		if !errors.Is(err, ErrFailed) {
			t.Errorf("%s: %v", op, err)
		}
	}
	select {
	case err := <-said:
		t.Errorf("said twice: %v", err)
	default:
	}
	s.db.Close()
}

// The map on the store it is made for, through a crash.
func TestMapOnPebble(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs)
	o := metadata.Options{Volume: owner, Origins: []uuid.UUID{owner}, Clusters: 1 << 22, Cache: metadata.NewCache(0), Store: s}
	m, err := metadata.New(o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(1000) {
		if err := m.Set(i+1, i*4001, 300, sco.At(0, sco.Number(i+1), 1)); err != nil {
			t.Fatal(err)
		}
	}
	f := m.Freeze(1000, nil)
	if err := f.NewPages(ctx, 0, func(n uint64, b []byte) error {
		return s.SavePages(ctx, owner, []metadata.EncodedPage{{Number: n, Bytes: b}})
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	m.Committed(f)
	for i := range uint64(1000) {
		if err := m.Set(i+1001, i*4001, 300, sco.At(0, sco.Number(i+2001), 1)); err != nil {
			t.Fatal(err)
		}
	}
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	m.Close()
	s.Close()
	s = open(t, crashed)
	defer s.Close()
	o.Store = s
	if m, err = metadata.Open(ctx, o, f.State()); err != nil {
		t.Fatal(err)
	}
	var dst [300]sco.Location
	for i := range uint64(1000) {
		if err := m.View().Read(ctx, i*4001, dst[:]); err != nil {
			t.Fatal(err)
		}
		if dst[299] != sco.At(0, sco.Number(i+1), 300) {
			t.Fatalf("cluster %d is %v", i*4001+299, dst[299])
		}
	}
}
