package filetree_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/internal/format/unknown"
)

var updateGolden = flag.Bool("update", false, "write golden files that are absent")

var ctx = context.Background()

func open(t testing.TB, keys *treetest.Keys) *filetree.Tree {
	t.Helper()
	tree, err := filetree.Open(ctx, keys)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func attr(n int64) filetree.Attr {
	return filetree.Attr{Mode: 0o640, UID: uint32(n), GID: uint32(n) + 1, Modified: n * 1000, Changed: n * 2000}
}

func disk(n int64) filetree.DiskAttr {
	return filetree.DiskAttr{Attr: attr(n), Epoch: uint64(n) + 10, Seq: uint64(n) + 1<<40}
}

// What an older release kept is read. It has no place in the order of a vDisk.
func TestOldKeys(t *testing.T) {
	text, err := os.ReadFile("testdata/keys-v1.txt")
	if err != nil {
		t.Fatal(err)
	}
	keys := treetest.New()
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		k, err := hex.DecodeString(f[0])
		v, verr := hex.DecodeString(f[2])
		if errors.Join(err, verr) != nil {
			t.Fatal(err, verr)
		}
		if !strings.HasPrefix(string(k), "files/c/") { // contents are cut short in the file
			if err := keys.Write(ctx, []filetree.Change{{Key: k, Value: v}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	tree := open(t, keys)
	if a, ok := tree.Disk([16]byte{1, 2, 3}); !ok || a != (filetree.DiskAttr{Attr: attr(7)}) {
		t.Errorf("vDisk: %+v, %v", a, ok)
	}
	for i, kind := range []filetree.Kind{filetree.Directory, filetree.File, filetree.EmptyDisk} {
		if e, ok := tree.Get(fmt.Sprintf("d%d", i)); !ok || e.Kind != kind || e.UID != uint32(i)+1 {
			t.Errorf("d%d: %+v, %v", i, e, ok)
		}
	}
}

// Many vDisks are kept at once, and directories get newer times, never older ones.
func TestKeepMany(t *testing.T) {
	keys := treetest.New()
	tree := open(t, keys)
	list := map[[16]byte]filetree.DiskAttr{}
	for i := range 3000 {
		list[[16]byte{byte(i), byte(i >> 8), 1}] = disk(int64(i))
	}
	d, err := tree.Make(ctx, "d", filetree.Entry{Kind: filetree.Directory, Attr: attr(5)})
	f, ferr := tree.Make(ctx, "f", filetree.Entry{Kind: filetree.File, Attr: attr(5)})
	due := map[[16]byte]filetree.Keeping{}
	for id, a := range list {
		due[id] = filetree.Keeping{Now: a}
	}
	if err = errors.Join(err, ferr, tree.KeepDisks(ctx, due)); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{20_000, 7_000} {
		if err := tree.Touch(ctx, map[string]int64{"d": at, "f": at, "absent": at}); err != nil {
			t.Fatal(err)
		}
	}
	tree = open(t, keys)
	for id, want := range list {
		if a, ok := tree.Disk(id); !ok || a != want {
			t.Fatalf("%x: %+v, %v", id, a, ok)
		}
	}
	if _, e, _ := tree.Path(d.Node); e.Modified != 20_000 || e.Changed != 20_000 {
		t.Errorf("directory: %+v", e)
	}
	if _, e, _ := tree.Path(f.Node); e != f {
		t.Errorf("file: %+v", e)
	}
}

// What was asked for since is not written over by whoever keeps times of many, nor does
// what was forgotten come back.
func TestKeepManyLate(t *testing.T) {
	keys := treetest.New()
	tree := open(t, keys)
	ids := [4][16]byte{{1}, {2}, {3}, {4}}
	changed, forgotten, same, first := ids[0], ids[1], ids[2], ids[3]
	for _, id := range [][16]byte{changed, forgotten, same} {
		if err := tree.KeepDisk(ctx, id, disk(1), 0); err != nil {
			t.Fatal(err)
		}
	}
	due := map[[16]byte]filetree.Keeping{first: {Now: disk(2)}}
	for _, id := range [][16]byte{changed, forgotten, same} {
		due[id] = filetree.Keeping{Was: disk(1), Kept: true, Now: disk(2)}
	}
	if err := errors.Join(tree.KeepDisk(ctx, changed, disk(5), 0), tree.KeepDisk(ctx, first, disk(5), 0), tree.ForgetDisk(ctx, forgotten)); err != nil {
		t.Fatal(err)
	}
	if err := tree.KeepDisks(ctx, due); err != nil {
		t.Fatal(err)
	}
	for _, tree := range []*filetree.Tree{tree, open(t, keys)} {
		for id, want := range map[[16]byte]filetree.DiskAttr{changed: disk(5), first: disk(5), same: disk(2)} {
			if a, ok := tree.Disk(id); !ok || a != want {
				t.Errorf("vDisk %d: %+v, %v", id[0], a, ok)
			}
		}
		if a, ok := tree.Disk(forgotten); ok {
			t.Errorf("what was forgotten is back: %+v", a)
		}
	}
}

// What is stored is never to change: keys-v2.txt holds every kind of key and
// value.
func TestGolden(t *testing.T) {
	const file = "testdata/keys-v2.txt"
	keys := treetest.New()
	tree := open(t, keys)
	for i, kind := range []filetree.Kind{filetree.Directory, filetree.File, filetree.EmptyDisk} {
		e, err := tree.Make(ctx, fmt.Sprintf("d%d", i), filetree.Entry{Kind: kind, Attr: attr(int64(i) + 1)})
		if err != nil {
			t.Fatal(err)
		}
		if kind == filetree.File {
			if err := tree.Store(ctx, e.Node, bytes.Repeat([]byte("x"), 70_000), 0, 1, time.Unix(9, 9)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tree.KeepDisk(ctx, [16]byte{1, 2, 3}, disk(7), 0); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	all := keys.All()
	for _, k := range slices.Sorted(maps.Keys(all)) {
		v := all[k]
		fmt.Fprintf(&got, "%s %d %s\n", hex.EncodeToString([]byte(k)), len(v), hex.EncodeToString(v[:min(len(v), 64)]))
	}
	if _, err := os.Stat(file); *updateGolden && err != nil {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, got.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Fatalf("the stored bytes changed (%v):\n%s", err, got.Bytes())
	}
}

// model is a tree as maps, and nothing clever.
type model struct {
	entries map[string]filetree.Entry
	content map[uint64][]byte
}

func (m *model) compare(t *testing.T, tree *filetree.Tree) {
	t.Helper()
	bytesOfAll := int64(0)
	for name, e := range m.entries {
		got, ok := tree.Get(name)
		if where, again, there := tree.Path(e.Node); !ok || got != e || !there || where != name || again != e {
			t.Fatalf("%s: %+v, %v (at %q); the model has %+v", name, got, ok, where, e)
		}
		bytesOfAll += e.Size
		if e.Kind != filetree.File {
			continue
		}
		if content, err := tree.Load(ctx, e.Node); err != nil || !bytes.Equal(content, m.content[e.Node]) {
			t.Fatalf("%s: %d bytes, %v; the model has %d", name, len(content), err, len(m.content[e.Node]))
		}
	}
	if got := tree.Bytes(); got != bytesOfAll {
		t.Fatalf("%d bytes in all, the model has %d", got, bytesOfAll)
	}
	for _, dir := range []string{"", "a", "b", "a/b"} {
		var want, names []string
		for name := range m.entries {
			if d := path.Dir(name); d == dir || d == "." && dir == "" {
				want = append(want, path.Base(name))
			}
		}
		for _, e := range tree.List(dir) {
			names = append(names, e.Name)
		}
		slices.Sort(want)
		if !slices.Equal(names, want) {
			t.Fatalf("%q has %v, the model %v", dir, names, want)
		}
	}
}

// replaces reports whether an entry may take the place of another.
func (m *model) replaces(e filetree.Entry, name string, onto filetree.Entry) bool {
	for n := range m.entries {
		if strings.HasPrefix(n, name+"/") && e.Kind == filetree.Directory {
			return false
		}
	}
	return e.Kind == onto.Kind && e.Kind != filetree.EmptyDisk
}

// step makes one random change to both.
func (m *model) step(r *rand.Rand, tree *filetree.Tree) (err, want error) {
	names := []string{"a", "b", "a/b", "a/c", "a/b/c", "a/b/d", "b/x", "c"}
	name, other := names[r.IntN(len(names))], names[r.IntN(len(names))]
	e, there := m.entries[name]
	switch r.IntN(7) {
	case 0, 1:
		e := filetree.Entry{Kind: filetree.Kind(1 + r.IntN(3)), Attr: attr(r.Int64N(100))}
		e, err = tree.Make(ctx, name, e)
		if there {
			return err, fs.ErrExist
		}
		m.entries[name] = e
	case 2:
		if err = tree.Remove(ctx, name, 0); !there {
			return err, fs.ErrNotExist
		}
		delete(m.entries, name)
	case 3:
		onto, taken := m.entries[other]
		replace := r.IntN(2) == 0
		err = tree.Move(ctx, name, other, replace, 0, nil)
		switch {
		case !there:
			return err, fs.ErrNotExist
		case name == other:
			return err, nil
		case strings.HasPrefix(other, name+"/"):
			return err, fs.ErrInvalid
		case taken && !(replace && m.replaces(e, other, onto)):
			return err, fs.ErrExist
		}
		was := maps.Clone(m.entries)
		for n := range was {
			rest, moves := strings.CutPrefix(n, name+"/")
			if _, taken := was[other+"/"+rest]; moves && taken {
				return err, fs.ErrExist
			}
		}
		for n, e := range was {
			if n == name || strings.HasPrefix(n, name+"/") {
				delete(m.entries, n)
				m.entries[other+n[len(name):]] = e
			}
		}
	case 4:
		_, err = tree.Set(ctx, e.Node, func(a *filetree.Attr) { a.Mode, a.UID = 0o600, 5 })
		if !there {
			return err, fs.ErrNotExist
		}
		e.Mode, e.UID = 0o600, 5
		m.entries[name] = e
	default:
		if !there || e.Kind != filetree.File {
			return nil, nil
		}
		content := bytes.Clone(m.content[e.Node])
		size := r.IntN(300_000)
		if size < len(content) {
			content = content[:size]
		}
		content = append(content, make([]byte, size-len(content))...)
		first := 0
		if size > 0 {
			first = r.IntN(size)
			content[first]++
		}
		err = tree.Store(ctx, e.Node, content, first>>16, first>>16, time.Unix(int64(size), 0))
		e.Size, e.Modified, e.Changed = int64(size), int64(size)*1e9, max(e.Changed, int64(size)*1e9)
		m.entries[name], m.content[e.Node] = e, content
	}
	return err, nil
}

// Random changes do what they do to maps, also after every start anew.
func TestModel(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 3))
		keys := treetest.New()
		tree := open(t, keys)
		m := &model{map[string]filetree.Entry{}, map[uint64][]byte{}}
		for i := range 400 {
			err, want := m.step(r, tree)
			if want == nil && err != nil || !errors.Is(err, want) {
				t.Fatalf("seed %d step %d: %v, the model says %v", seed, i, err, want)
			}
			if i%8 == 0 {
				m.compare(t, tree)
			}
			if i%50 == 0 {
				tree = open(t, keys)
				m.compare(t, tree)
			}
		}
		for name := range m.entries {
			if err := tree.Remove(ctx, name, 0); err != nil {
				t.Fatal(err)
			}
		}
		if all := keys.All(); len(all) != 0 {
			t.Fatalf("seed %d: %d keys are left", seed, len(all))
		}
	}
}

// Contents that an unlink left when the process ended go at the next start, and
// their node is not given again.
func TestSweep(t *testing.T) {
	keys := treetest.New()
	tree := open(t, keys)
	e, err := tree.Make(ctx, "a", filetree.Entry{Kind: filetree.File})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Store(ctx, e.Node, make([]byte, 200_000), 0, 3, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := keys.Write(ctx, []filetree.Change{{Key: []byte("files/e/a")}}); err != nil {
		t.Fatal(err)
	}
	tree = open(t, keys)
	if all := keys.All(); len(all) != 0 {
		t.Fatalf("%d keys are left", len(all))
	}
	if again, err := tree.Make(ctx, "b", filetree.Entry{Kind: filetree.File}); err != nil || again.Node <= e.Node {
		t.Fatal(again, err)
	}
}

// A move with a commit changes memory when that is done, and nothing otherwise;
// what it is given are all the changes.
func TestMoveWith(t *testing.T) {
	keys := treetest.New()
	tree := open(t, keys)
	made := map[string]filetree.Entry{}
	for _, name := range []string{"vm", "vm/sub", "vm/sub/x", "to"} {
		kind := filetree.Directory
		if name == "vm/sub/x" {
			kind = filetree.EmptyDisk
		}
		e, err := tree.Make(ctx, name, filetree.Entry{Kind: kind, Attr: attr(3)})
		if err != nil {
			t.Fatal(err)
		}
		made[name] = e
	}
	refused := fmt.Errorf("a vDisk is in the way: %w: %w", fs.ErrExist, filetree.ErrNotWritten)
	if err := tree.Move(ctx, "vm", "to", true, 0, func(context.Context, []filetree.Swap) error { return refused }); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	for name, e := range made {
		if got, ok := tree.Get(name); !ok || got != e {
			t.Fatalf("%s after a move that was refused: %+v, %v", name, got, ok)
		}
	}
	apply := func(_ context.Context, swaps []filetree.Swap) error {
		all := keys.All()
		var changes []filetree.Change
		for _, s := range swaps {
			if old, there := all[string(s.Key)]; there != (s.Old != nil) || !bytes.Equal(old, s.Old) {
				t.Errorf("key %q has the value %x, the swap says %x", s.Key, old, s.Old)
			}
			changes = append(changes, filetree.Change{Key: s.Key, Value: s.New})
		}
		return keys.Write(ctx, changes)
	}
	if err := tree.Move(ctx, "vm", "to", true, 0, apply); err != nil {
		t.Fatal(err)
	}
	if err := tree.Move(ctx, "implied", "elsewhere", true, 0, apply); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Make(ctx, "gone", filetree.Entry{Kind: filetree.Directory}); err != nil {
		t.Fatal(err)
	}
	if err := tree.Move(ctx, "implied", "gone", true, 0, apply); err != nil {
		t.Fatal(err)
	}
	for _, tree := range []*filetree.Tree{tree, open(t, keys)} {
		for name, e := range made {
			now := "to" + strings.TrimPrefix(name, "vm")
			if got, ok := tree.Get(now); name != "to" && (!ok || got != e) {
				t.Errorf("%s: %+v, %v", now, got, ok)
			}
			if _, ok := tree.Get(name); ok && name != "to" {
				t.Errorf("%s is there", name)
			}
		}
		if _, ok := tree.Get("gone"); ok {
			t.Error("a directory that was replaced by an implied one has an entry")
		}
	}
	tree = open(t, keys)
	doubt := errors.New("no answer")
	if err := tree.Move(ctx, "to", "vm", false, 0, func(context.Context, []filetree.Swap) error { return doubt }); !errors.Is(err, doubt) {
		t.Fatal(err)
	}
	if _, there := tree.Get("to/sub/x"); !there {
		t.Error("a move in doubt has moved something")
	}
	if err := tree.Remove(ctx, "to/sub/x", 0); err != nil {
		t.Error("a change after one that proves not to have been made: ", err)
	}
}

// A move has a bound, whatever is below.
func TestMoveBounds(t *testing.T) {
	tree := open(t, treetest.New())
	for i := range filetree.MoveMax + 1 {
		if _, err := tree.Make(ctx, fmt.Sprintf("d/%d", i), filetree.Entry{Kind: filetree.Directory}); err != nil {
			t.Fatal(err)
		}
	}
	nothing := func(context.Context, []filetree.Swap) error { return nil }
	if err := tree.Move(ctx, "d", "e", false, 0, nothing); !errors.Is(err, filetree.ErrMany) {
		t.Error(err)
	}
	if err := tree.Remove(ctx, "d/0", 0); err != nil {
		t.Fatal(err)
	}
	if err := tree.Move(ctx, "d", strings.Repeat("e", 1023), false, 0, nothing); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Error(err)
	}
	if err := tree.Move(ctx, "d", strings.Repeat("e", 900), false, 0, nothing); !errors.Is(err, filetree.ErrMany) {
		t.Error(err)
	}
	if err := tree.Move(ctx, "d", "e", false, 0, nothing); err != nil {
		t.Error(err)
	}
}

func TestDisks(t *testing.T) {
	keys := treetest.New()
	tree := open(t, keys)
	for i := range byte(3) {
		if err := tree.KeepDisk(ctx, [16]byte{i}, disk(int64(i)), 0); err != nil {
			t.Fatal(err)
		}
	}
	x, err := tree.Make(ctx, "x.raw", filetree.Entry{Kind: filetree.EmptyDisk})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Move(ctx, "x.raw", "y.raw", false, 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := tree.KeepDisk(ctx, [16]byte{9}, disk(9), x.Node); err != nil {
		t.Fatal(err)
	}
	if _, there := tree.Get("y.raw"); there {
		t.Error("the file without a size is there still")
	}
	if err := tree.ForgetDisks(ctx, func(id [16]byte) bool { return id[0] == 9 || id[0] == 1 }); err != nil {
		t.Fatal(err)
	}
	tree = open(t, keys)
	for i := range byte(10) {
		if a, ok := tree.Disk([16]byte{i}); ok != (i == 9 || i == 1) || ok && a != disk(int64(i)) {
			t.Errorf("vDisk %d: %+v, %v", i, a, ok)
		}
	}
}

func TestBounds(t *testing.T) {
	tree := open(t, treetest.New())
	for _, name := range []string{"", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", strings.Repeat("x", 1025)} {
		if _, err := tree.Make(ctx, name, filetree.Entry{Kind: filetree.File}); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%.20q: %v", name, err)
		}
	}
	if err := tree.Room(0, filetree.MaxFile+1); !errors.Is(err, syscall.EFBIG) {
		t.Error(err)
	}
	for i := range filetree.MaxBytes / filetree.MaxFile {
		e, err := tree.Make(ctx, fmt.Sprint(i), filetree.Entry{Kind: filetree.File})
		if err == nil {
			err = tree.Store(ctx, e.Node, make([]byte, filetree.MaxFile), 0, 1<<20, time.Now())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := tree.Room(0, 1); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
}

// Keys that this release cannot have written are refused by name.
func TestRefused(t *testing.T) {
	keys := treetest.New()
	if _, err := open(t, keys).Make(ctx, "a", filetree.Entry{Kind: filetree.File, Attr: attr(1)}); err != nil {
		t.Fatal(err)
	}
	good := keys.All()["files/e/a"]
	for what, edit := range map[string]func([]byte) []byte{
		"newer":       func(b []byte) []byte { b[0] = 2; return b },
		"short":       func(b []byte) []byte { return b[:45] },
		"kind":        func(b []byte) []byte { b[1] = 9; return b },
		"mode":        func(b []byte) []byte { b[2] = 1; return b },
		"size":        func(b []byte) []byte { b[38] = 0x80; return b },
		"node":        func(b []byte) []byte { clear(b[30:38]); return b },
		"a vDisk's":   func(b []byte) []byte { b[1] = 4; return b },
		"size of dir": func(b []byte) []byte { b[1], b[45] = 1, 1; return b },
	} {
		if err := keys.Write(ctx, []filetree.Change{{[]byte("files/e/a"), edit(bytes.Clone(good))}}); err != nil {
			t.Fatal(err)
		}
		if _, err := filetree.Open(ctx, keys); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

// What a later release may put into a tree, one thing at a time. Nothing is deleted.
func TestUnknown(t *testing.T) {
	keys := treetest.New()
	tree := open(t, keys)
	if _, err := tree.Make(ctx, "a", filetree.Entry{Kind: filetree.File, Attr: attr(1)}); err != nil {
		t.Fatal(err)
	}
	if err := tree.KeepDisk(ctx, [16]byte{1}, disk(7), 0); err != nil {
		t.Fatal(err)
	}
	const entry, vdisk = "files/e/a", "files/d/\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	lost := append([]byte("files/c/"), 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 0) // of no file: it would be swept
	of := func(says, key string, edit func(b []byte) []byte) unknown.Case {
		return unknown.Case{Says: says, Read: func() error {
			next := treetest.New()
			all := keys.All()
			all[key], all[string(lost)] = edit(bytes.Clone(all[key])), []byte("x")
			for k, v := range all {
				if err := next.Write(ctx, []filetree.Change{{Key: []byte(k), Value: v}}); err != nil {
					t.Fatal(err)
				}
			}
			_, err := filetree.Open(ctx, next)
			if err != nil && next.All()[string(lost)] == nil {
				t.Errorf("%s: swept", says)
			}
			return err
		}}
	}
	set := func(at int, v byte) func([]byte) []byte { return func(b []byte) []byte { b[at] = v; return b } }
	more := func(b []byte) []byte { return append(b, 0) }
	unknown.Walk(t, "Tree of a mount", map[string]unknown.Case{
		"a later version of an entry":    of("version 2", entry, set(0, 2)),
		"a longer entry":                 of("47 bytes", entry, more),
		"a kind of entry":                of("kind 5", entry, set(1, 5)),
		"a bit of the mode":              of("mode", entry, set(2, 1)),
		"a later version of a vDisk":     of("version 3", vdisk, set(0, 3)),
		"a longer vDisk":                 of("63 bytes", vdisk, more),
		"a kind of key":                  of(`key "files/x/1"`, "files/x/1", more),
		"a form of the key of a content": of(`key "files/c/long`, "files/c/longer than any", more),
	})
}

// No record may panic; what is taken is written back as it was.
func FuzzRecord(f *testing.F) {
	keys := treetest.New()
	if _, err := open(f, keys).Make(ctx, "a", filetree.Entry{Kind: filetree.File, Attr: attr(1)}); err != nil {
		f.Fatal(err)
	}
	f.Add(keys.All()["files/e/a"])
	f.Fuzz(func(t *testing.T, record []byte) {
		keys := treetest.New()
		if err := keys.Write(ctx, []filetree.Change{{[]byte("files/e/a"), append([]byte{}, record...)}}); err != nil {
			t.Fatal(err)
		}
		tree, err := filetree.Open(ctx, keys)
		if err != nil {
			return
		}
		if err := tree.Move(ctx, "a", "b", false, 0, nil); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(keys.All()["files/e/b"], record) {
			t.Fatal("another record was written back")
		}
	})
}
