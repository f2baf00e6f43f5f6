package groups

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/generation"

	"golang.org/x/sys/unix"
)

var ctx = context.Background()

const dir = "/data"

var specs = []Spec{{Name: "a", After: []string{"later"}}, {Name: "b"}, {Name: "c"}}

// start is what a start of the product has open.
type start struct {
	*Groups
	dir *datadir.Directory
}

func (s *start) Close() error { return errors.Join(s.Groups.Close(), s.dir.Close()) }

// open opens the groups of a directory and claims a generation.
func open(fs disk.FS) (*start, error) {
	d, err := datadir.Open(fs, dir)
	if err != nil {
		return nil, err
	}
	g, err := Open(ctx, Options{FS: fs, Dir: dir, ID: d.ID, Ledger: d}, specs...)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if err := g.Claim(ctx, 0, false); err != nil {
		return nil, errors.Join(err, g.closeNodes(), d.Close())
	}
	return &start{g, d}, nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t testing.TB, fs disk.FS) *start {
	t.Helper()
	s, err := open(fs)
	must(t, err)
	return s
}

// change writes something to a group.
func (s *start) change(t testing.TB, group, value string) {
	t.Helper()
	_, err := s.Node(group).Do(ctx, new(arakoon.Sequence).Set([]byte("k"), []byte(value)))
	must(t, err)
}

func (s *start) value(t testing.TB, group string) string {
	t.Helper()
	v, err := s.Node(group).MultiGet(ctx, arakoon.Consistent, []byte("k"))
	must(t, err)
	return string(v[0])
}

// used returns a disk with a directory that was used, stopped and started again.
func used(t testing.TB) *crashdisk.FS {
	t.Helper()
	fs := crashdisk.New()
	for i := range 2 {
		s := mustOpen(t, fs)
		for _, spec := range specs {
			s.change(t, spec.Name, fmt.Sprint(i))
		}
		must(t, s.Close())
	}
	return fs
}

// copyTree puts a copy of from on one disk in place of to on another.
func copyTree(t testing.TB, from *crashdisk.FS, name string, to *crashdisk.FS) {
	t.Helper()
	must(t, to.Copy(name, from, name))
}

// A group that was made is never made again, whatever else is lost with it: the
// record of the directory says so, and each of the other groups.
func TestLost(t *testing.T) {
	all := used(t)
	record := path.Join(dir, datadir.FormatFile)
	before := crashdisk.New() // the record of a first start that was cut
	d, err := datadir.Open(before, dir)
	must(t, err)
	must(t, d.Close())
	for name, c := range map[string]struct {
		lose func(fs *crashdisk.FS)
		want error
	}{
		"a group":          {func(fs *crashdisk.FS) { fs.RemoveAll("/data/arakoon/a") }, ErrMissing},
		"its log":          {func(fs *crashdisk.FS) { fs.RemoveAll("/data/arakoon/a/log") }, ErrMissing},
		"a group, marks":   {func(fs *crashdisk.FS) { fs.RemoveAll("/data/arakoon/a"); fs.Remove("/data/arakoon/a.marks") }, ErrMissing},
		"all groups":       {func(fs *crashdisk.FS) { fs.RemoveAll("/data/arakoon") }, ErrMissing},
		"a group, record":  {func(fs *crashdisk.FS) { fs.RemoveAll("/data/arakoon/a"); oldRecord(t, fs, all) }, ErrOlder},
		"record":           {func(fs *crashdisk.FS) { fs.Remove(record) }, datadir.ErrNotOvs},
		"record, older":    {func(fs *crashdisk.FS) { oldRecord(t, fs, all) }, ErrOlder},
		"marks of a group": {func(fs *crashdisk.FS) { fs.Remove("/data/arakoon/b.marks") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			fs := all.Kill()
			c.lose(fs)
			s, err := open(fs)
			if err == nil {
				s.Close()
				t.Fatal("it was opened")
			}
			if c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("%v; want %v", err, c.want)
			}
			if !strings.Contains(err.Error(), "/data") || !strings.Contains(err.Error(), "estore") && !errors.Is(err, datadir.ErrNotOvs) {
				t.Errorf("it does not say where or what to do: %v", err)
			}
			// What was lost put back, all is there.
			must(t, fs.RemoveAll(dir))
			copyTree(t, all, dir, fs)
			s = mustOpen(t, fs)
			for _, spec := range specs {
				if got := s.value(t, spec.Name); got != "1" {
					t.Errorf("group %s holds %q", spec.Name, got)
				}
			}
			must(t, s.Close())
		})
	}
}

// oldRecord puts a record in place that knows of no group and no generation.
func oldRecord(t testing.TB, fs, of *crashdisk.FS) {
	t.Helper()
	f, err := of.OpenFile(path.Join(dir, datadir.FormatFile), 0, 0)
	must(t, err)
	b := make([]byte, datadir.FileSize)
	_, err = f.ReadAt(b, 0)
	must(t, errors.Join(err, f.Close()))
	r, _, err := datadir.Decode(b)
	must(t, err)
	f, err = fs.OpenFile(path.Join(dir, datadir.FormatFile), disk.Write, 0)
	must(t, err)
	_, err = f.WriteAt(datadir.Append(nil, datadir.Record{ID: r.ID, Created: r.Created, Incarnation: r.Incarnation}), 0)
	must(t, errors.Join(err, f.Close()))
}

// A part that was put back from an older copy is refused by what the rest has
// seen, and a copy of the whole is not.
func TestOlder(t *testing.T) {
	fs := used(t)
	older := fs.Kill()
	s := mustOpen(t, fs)
	s.change(t, "a", "new")
	if _, changed, err := s.Beat(ctx); err != nil || !changed {
		t.Fatalf("no beat: %v", err)
	}
	running := fs.Kill()
	s.change(t, "b", "new")
	must(t, s.Close())
	for _, part := range []string{"/data/arakoon/a", "/data/arakoon/b", "/data/arakoon", "/data/ovs.format"} {
		for when, copied := range map[string]*crashdisk.FS{"stopped": older, "running": running} {
			t.Run(part+" "+when, func(t *testing.T) {
				now := fs.Kill()
				copyTree(t, copied, part, now)
				if g, err := open(now); err == nil {
					g.Close()
					t.Error("it was opened")
				} else if !strings.Contains(err.Error(), "/data/") || !strings.Contains(err.Error(), "estore") {
					t.Errorf("it does not say where or what to do: %v", err)
				}
			})
		}
	}
	whole := older.Kill()
	if g, err := open(whole); err != nil || g.value(t, "a") != "1" {
		t.Errorf("a whole copy: %v", err)
	}
}

// Two copies that go on apart claim the same numbers. A group of one in the other
// is told by what each start drew.
func TestForeign(t *testing.T) {
	one := used(t)
	two := one.Kill()
	for _, fs := range []*crashdisk.FS{one, two} {
		s := mustOpen(t, fs)
		s.change(t, "a", "on")
		must(t, s.Close())
	}
	copyTree(t, two, "/data/arakoon/a", one)
	copyTree(t, two, "/data/arakoon/a.marks", one)
	if _, err := open(one); !errors.Is(err, ErrForeign) {
		t.Error(err)
	}
}

// A directory of a release that kept no records gets them at its first start.
func TestUpgrade(t *testing.T) {
	old := func(t *testing.T) *crashdisk.FS {
		fs := crashdisk.New()
		d, err := datadir.Open(fs, dir)
		must(t, err)
		g, err := Open(ctx, Options{FS: fs, Dir: dir, ID: d.ID, Ledger: d}, specs...)
		must(t, err)
		must(t, errors.Join(g.closeNodes(), d.Close()))
		oldRecord(t, fs, fs)
		must(t, fs.MkdirAll("/data/later", 0o700))
		return fs
	}
	t.Run("whole", func(t *testing.T) {
		fs := old(t)
		s := mustOpen(t, fs)
		if r := s.dir.Record(); !slices.Equal(r.Groups, []string{"a", "b", "c"}) || r.Settled != 1 || len(r.History) != 1 {
			t.Errorf("recorded %+v", r)
		}
		must(t, s.Close())
	})
	t.Run("without a group", func(t *testing.T) {
		fs := old(t)
		must(t, errors.Join(fs.RemoveAll("/data/arakoon/a"), fs.Remove("/data/arakoon/a.marks")))
		if _, err := open(fs); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "/data/later") {
			t.Error(err)
		}
		if _, err := fs.Stat("/data/arakoon/a"); err == nil {
			t.Error("it was made")
		}
	})
}

// Power cuts anywhere in starts, beats and stops, again and again: whatever is
// left opens, and what was written is there.
func TestPowerCuts(t *testing.T) {
	modes := []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 7))
		mem := crashdisk.New()
		written := ""
		for round := range 40 {
			faulty := faultdisk.New(mem)
			var mu sync.Mutex // groups work side by side
			var image *crashdisk.FS
			left := rng.IntN(60)
			faulty.Inject(faultdisk.Rule{Ops: faultdisk.Write | faultdisk.Datasync | faultdisk.Rename | faultdisk.SyncDir,
				Before: func(faultdisk.Op, string) {
					mu.Lock()
					defer mu.Unlock()
					if left--; left == 0 {
						image = mem.Crash(rng, modes[rng.IntN(len(modes))])
					}
				}})
			s, err := open(faulty)
			if err != nil {
				t.Fatalf("seed %d, round %d: %v", seed, round, err)
			}
			if got := s.value(t, "a"); got < written {
				t.Fatalf("seed %d, round %d: group a holds %q, and %q was written", seed, round, got, written)
			}
			value := fmt.Sprintf("%03d", round)
			s.change(t, "a", value)
			mu.Lock()
			if image == nil {
				written = value
			}
			mu.Unlock()
			_, _, err = s.Beat(ctx)
			must(t, errors.Join(err, s.Close()))
			if image == nil {
				image = mem.Kill()
			}
			mem = image
		}
	}
}

// Nothing is claimed while nothing changes.
func TestBeatRests(t *testing.T) {
	fs := used(t)
	s := mustOpen(t, fs)
	m := s.Mark()
	for range 3 {
		if got, changed, err := s.Beat(ctx); err != nil || changed || got != m {
			t.Fatalf("beat %v, %v, %v", got, changed, err)
		}
	}
	s.change(t, "c", "x")
	if got, changed, err := s.Beat(ctx); err != nil || !changed || got != (generation.Mark{Number: m.Number + 1, Start: m.Start}) {
		t.Fatalf("beat %v, %v, %v", got, changed, err)
	}
	if s.Judge(m) != generation.Ours || s.Judge(generation.Mark{Number: m.Number + 9, Start: m.Start}) != generation.Newer {
		t.Error("its own marks are judged otherwise")
	}
	must(t, s.Close())
}

// A claim whose record may or may not be on the disk ends the start, whatever the
// errno: it is not waited for. The next start finds out.
func TestClaimInDoubt(t *testing.T) {
	for _, op := range []faultdisk.Op{faultdisk.Rename, faultdisk.SyncDir} {
		fs := used(t)
		faulty := faultdisk.New(fs)
		faulty.Inject(faultdisk.Rule{Ops: op, Path: map[faultdisk.Op]string{faultdisk.Rename: "/data/ovs.format", faultdisk.SyncDir: "/data"}[op], Times: 1, Err: unix.EMFILE})
		if _, err := open(faulty); !errors.Is(err, datadir.ErrInDoubt) || !errors.Is(err, unix.EMFILE) {
			t.Errorf("%v: %v", op, err)
		}
		s := mustOpen(t, fs.Kill())
		if got := s.value(t, "a"); got != "1" {
			t.Errorf("%v: group a holds %q", op, got)
		}
		must(t, s.Close())
	}
}

// A group whose log finds no room for the segment that each opening begins, with its
// spare used up, makes the start wait, and not fail; and opens when there is room.
func TestOpenWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := crashdisk.New()
		s := mustOpen(t, mem)
		s.change(t, "a", "x")
		must(t, s.Close())
		faulty := faultdisk.New(mem)
		for _, of := range specs {
			must(t, faulty.Remove(path.Join(dir, "arakoon", of.Name, "log", "spare")))
		}
		q := faulty.Limit(path.Join(dir, "arakoon"), 0)
		opened := make(chan error, 1)
		go func() {
			var err error
			s, err = open(faulty)
			opened <- err
		}()
		time.Sleep(time.Minute)
		select {
		case err := <-opened:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
		q.Remove()
		must(t, <-opened)
		if v := s.value(t, "a"); v != "x" {
			t.Errorf("a holds %q", v)
		}
		must(t, s.Close())
	})
}
