package registry

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/osdisk"
	"openvstorage/internal/format"

	"github.com/google/uuid"
)

var (
	ctx    = context.Background()
	update = flag.Bool("update", false, "write golden files that are absent")
)

func id(n byte) uuid.UUID { return uuid.UUID{0: n, 6: 0x40, 8: 0x80, 15: n} }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: got %v, want %v", what, err, target)
	}
}

func open(t *testing.T, fsys disk.FS, dir string) *Local {
	t.Helper()
	l, err := Open(fsys, dir)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func TestValidateName(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "vm-1/root": true, "été": true, "a b": true, "...": true, ".a": true, "名前/盤": true,
		strings.Repeat("x", 255):                              true,
		strings.Repeat(strings.Repeat("x", 204)+"/", 4) + "x": true, strings.Repeat("x/", 511) + "xx": true,
		"": false, "/": false, "/a": false, "a/": false, "a//b": false, ".": false, "..": false, "a/../b": false, "a/.": false,
		"a@b": false, "a\nb": false, "a\x00": false, "a\x7f": false, "a\u0085": false, "\xff": false,
		strings.Repeat("x", 256): false, strings.Repeat("x/", 512) + "x": false,
	} {
		if err := ValidateName(name); (err == nil) != ok || err != nil && !errors.Is(err, ErrName) {
			t.Errorf("%.40q: %v", name, err)
		}
	}
}

func TestLife(t *testing.T) {
	for name, fsys := range map[string]disk.FS{"osdisk": osdisk.New(), "crashdisk": crashdisk.New()} {
		t.Run(name, func(t *testing.T) { life(t, fsys, t.TempDir()+"/registry") })
	}
}

func life(t *testing.T, fsys disk.FS, dir string) {
	l := open(t, fsys, dir)
	at := time.Date(2025, 1, 2, 3, 4, 5, 6, time.UTC)
	a := Record{ID: id(1), Name: "vm/a", Created: at, Parent: id(2)}
	b := Record{ID: id(2), Name: "b", Created: at}
	must(t, l.Register(ctx, a))
	must(t, l.Register(ctx, b))
	want(t, "id again", l.Register(ctx, Record{ID: id(1), Name: "c"}), ErrIDTaken)
	want(t, "name again", l.Register(ctx, Record{ID: id(3), Name: "b"}), ErrNameTaken)
	want(t, "bad name", l.Register(ctx, Record{ID: id(3), Name: "b@c"}), ErrName)
	if l.Register(ctx, Record{Name: "c"}) == nil {
		t.Error("a record without id is accepted")
	}
	_, err := Open(fsys, dir)
	want(t, "second open", err, disk.ErrLocked)

	for i := range uint64(3) {
		if e, err := l.Claim(ctx, id(1), "host"); err != nil || e != i+1 {
			t.Errorf("claim %d: %d, %v", i+1, e, err)
		}
	}
	_, err = l.Claim(ctx, id(9), "host")
	want(t, "claim absent", err, ErrNotFound)
	if _, err := l.Claim(ctx, id(1), strings.Repeat("x", 256)); err == nil {
		t.Error("an owner of 256 bytes is accepted")
	}
	want(t, "rename to taken", l.Rename(ctx, id(1), "b"), ErrNameTaken)
	want(t, "rename absent", l.Rename(ctx, id(9), "c"), ErrNotFound)
	want(t, "rename to bad", l.Rename(ctx, id(1), ".."), ErrName)
	must(t, l.Rename(ctx, id(1), "vm/a"))
	must(t, l.Rename(ctx, id(1), "z"))
	must(t, l.MarkDeleting(ctx, id(2)))
	a.Name, a.Epoch, a.Owner, b.Deleting = "z", 3, "host", true

	check := func() {
		t.Helper()
		if got, err := l.List(ctx); err != nil || !reflect.DeepEqual(got, []Record{b, a}) {
			t.Errorf("list: %+v, %v", got, err)
		}
		if got, err := l.Lookup(ctx, "z"); err != nil || got != a {
			t.Errorf("lookup: %+v, %v", got, err)
		}
		if got, err := l.Get(ctx, id(2)); err != nil || got != b {
			t.Errorf("get: %+v, %v", got, err)
		}
		_, err := l.Lookup(ctx, "vm/a")
		want(t, "old name", err, ErrNotFound)
	}
	check()
	must(t, l.Close())
	must(t, l.Close())
	want(t, "closed", l.MarkDeleting(ctx, id(1)), ErrClosed)
	l = open(t, fsys, dir)
	check()
	must(t, l.Remove(ctx, id(2)))
	want(t, "remove again", l.Remove(ctx, id(2)), ErrNotFound)
	must(t, l.Register(ctx, Record{ID: id(4), Name: "b", Created: at}))
	dead, cancel := context.WithCancel(ctx)
	cancel()
	want(t, "cancelled", l.MarkDeleting(dead, id(1)), context.Canceled)
}

func TestConcurrentClaimsAllDiffer(t *testing.T) {
	l := open(t, crashdisk.New(), "r")
	must(t, l.Register(ctx, Record{ID: id(1), Name: "a"}))
	var wg sync.WaitGroup
	epochs := make([]uint64, 20)
	for i := range epochs {
		wg.Go(func() { epochs[i], _ = l.Claim(ctx, id(1), fmt.Sprint("host ", i)) })
		wg.Go(func() { l.List(ctx) })
	}
	wg.Wait()
	seen := map[uint64]bool{0: true}
	for _, e := range epochs {
		if seen[e] || e > 20 {
			t.Errorf("epochs %v", epochs)
		}
		seen[e] = true
	}
}

// A power cut or a kill before any step of a change leaves the registry as it
// was acknowledged, or as it was about to be; and once an open has shown one
// of the two, it stays.
func TestCrash(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	d := crashdisk.New()
	var acked uint64 // epoch; the change under way makes it one more
	images := 0
	look := func(string, string) error {
		for _, image := range []*crashdisk.FS{
			d.Kill(), d.Crash(rng, crashdisk.KeepAll), d.Crash(rng, crashdisk.LoseAll), d.Crash(rng, crashdisk.Mixed), d.Crash(rng, crashdisk.Torn),
		} {
			images++
			first := epoch(t, image, acked)
			if second := epoch(t, image.Crash(rng, crashdisk.LoseAll), acked); second != first {
				t.Fatalf("epoch %d was served, then %d", first, second)
			}
		}
		return nil
	}
	hooked := &stepFS{FS: d, step: func(string, string) error { return nil }}
	l := open(t, hooked, "r")
	must(t, l.Register(ctx, Record{ID: id(1), Name: "a"}))
	hooked.step = look
	for acked = range uint64(12) {
		e, err := l.Claim(ctx, id(1), "host")
		if must(t, err); e != acked+1 {
			t.Fatalf("epoch %d after %d", e, acked)
		}
	}
	if images < 12*9*5 {
		t.Errorf("only %d images", images)
	}
}

// epoch opens the registry on an image and returns the epoch it finds.
func epoch(t *testing.T, image *crashdisk.FS, acked uint64) uint64 {
	t.Helper()
	l, err := Open(image, "r")
	must(t, err)
	defer l.Close()
	r, err := l.Lookup(ctx, "a")
	must(t, err)
	if r.Epoch != acked && r.Epoch != acked+1 {
		t.Fatalf("epoch %d was acknowledged, %d is left", acked, r.Epoch)
	}
	return r.Epoch
}

// A failed write or sync of a temporary file changes nothing and can be
// tried again; a failed rename or directory sync ends all changes.
func TestFaults(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		op, name string
		final    bool
	}{
		{"open", "r/registry.0.tmp", false}, {"write", "r/registry.1.tmp", false}, {"datasync", "r/registry.0.tmp", false},
		{"datasync", "r/registry.1.tmp", false}, {"rename", "r/registry.0.tmp", true}, {"rename", "r/registry.1.tmp", true}, {"syncdir", "r", true},
	} {
		t.Run(c.op+c.name, func(t *testing.T) {
			d := crashdisk.New()
			hooked := &stepFS{FS: d, step: func(string, string) error { return nil }}
			l := open(t, hooked, "r")
			must(t, l.Register(ctx, Record{ID: id(1), Name: "a"}))
			hooked.step = func(op, name string) error {
				if op == c.op && name == c.name {
					return broken
				}
				return nil
			}
			_, err := l.Claim(ctx, id(1), "host")
			want(t, "claim", err, broken)
			hooked.step = func(string, string) error { return nil }
			r, err := l.Get(ctx, id(1))
			if must(t, err); r.Epoch != 0 {
				t.Error("a failed claim shows")
			}
			_, err = l.Claim(ctx, id(1), "host")
			if c.final {
				want(t, "claim again", err, ErrFailed)
			} else {
				must(t, err)
			}
			l.Close()
			l = open(t, d.Kill(), "r")
			_, err = l.Claim(ctx, id(1), "host")
			must(t, err)
		})
	}
}

func readFile(t *testing.T, fsys disk.FS, name string) []byte {
	t.Helper()
	f, err := fsys.OpenFile(name, 0, 0)
	must(t, err)
	defer f.Close()
	n, err := f.Size()
	must(t, err)
	b := make([]byte, n)
	_, err = f.ReadAt(b, 0)
	must(t, err)
	return b
}

func writeFile(t *testing.T, fsys disk.FS, name string, b []byte) {
	t.Helper()
	f, err := fsys.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o644)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(b, 0)
	must(t, err)
}

// One damaged or missing copy costs nothing and is repaired; two are refused
// by name.
func TestDamage(t *testing.T) {
	d := crashdisk.New()
	l := open(t, d, "r")
	must(t, l.Register(ctx, Record{ID: id(1), Name: "a"}))
	_, err := l.Claim(ctx, id(1), "host")
	must(t, err)
	l.Close()
	whole := readFile(t, d, "r/registry.0")
	for i := range len(whole) + 2 {
		for _, name := range copies {
			image := d.Kill()
			bad := bytes.Clone(whole)
			switch {
			case i < len(whole):
				bad[i] ^= 1 << (i % 8)
				writeFile(t, image, "r/"+name, bad)
			case i == len(whole):
				writeFile(t, image, "r/"+name, bad[:i-1])
			default:
				must(t, image.Remove("r/"+name))
			}
			if e := epoch(t, image, 1); e != 1 {
				t.Fatalf("byte %d of %s: epoch %d", i, name, e)
			}
			if a, b := readFile(t, image, "r/registry.0"), readFile(t, image, "r/registry.1"); !bytes.Equal(a, b) {
				t.Fatalf("byte %d of %s: not repaired", i, name)
			}
		}
	}
	image := d.Kill()
	writeFile(t, image, "r/registry.0", whole[:70])
	writeFile(t, image, "r/registry.1", nil)
	_, err = Open(image, "r")
	if want(t, "both damaged", err, format.ErrCorrupt); !strings.Contains(fmt.Sprint(err), "r/registry.0") {
		t.Errorf("the error names no file: %v", err)
	}
	must(t, image.Remove("r/registry.0"))
	_, err = Open(image, "r")
	want(t, "one damaged, one missing", err, format.ErrCorrupt)

	newer := append(format.AppendHeader(nil, format.Header{Kind: format.KindRegistry, Version: 2, MinReader: 2}), whole[64:]...)
	image = d.Kill()
	writeFile(t, image, "r/registry.1", newer)
	_, err = Open(image, "r")
	want(t, "newer", err, format.ErrNewer)
}

func sample() []Record {
	at := time.Date(2025, 3, 4, 5, 6, 7, 89, time.UTC)
	return []Record{
		{ID: id(2), Name: "clone", Epoch: 3, Owner: "host-1", Created: at, Parent: id(1), Deleting: true},
		{ID: id(1), Name: "vm/root", Created: at},
	}
}

// The golden file holds version 1. It is never edited.
func TestGolden(t *testing.T) {
	const file = "testdata/registry-v1.hex"
	b := encode(5, sample())
	if _, err := os.Stat(file); err != nil && *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(file, annotate(b), 0o644))
	}
	text, err := os.ReadFile(file)
	must(t, err)
	var golden []byte
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		part, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
		must(t, err)
		golden = append(golden, part...)
	}
	generation, records, err := decode(golden)
	if err != nil || generation != 5 || !reflect.DeepEqual(records, sample()) {
		t.Errorf("version 1 does not open: %v", err)
	}
	if !bytes.Equal(b, golden) {
		t.Error("version 1 is written with other bytes")
	}
}

func annotate(b []byte) []byte {
	var out bytes.Buffer
	out.WriteString("# registry, version 1, of sample() in registry_test.go, generation 5\n")
	for _, f := range []struct {
		n    int
		name string
	}{
		{8, "magic"}, {16, "kind, version, minimum reader, zero, features"}, {16, "no owner"}, {8, "generation"}, {16, "incarnation, zero, header CRC"},
		{4, "length"}, {4, "records"},
		{16, "id"}, {16, "parent"}, {8, "epoch"}, {12, "created"}, {1, "flags"}, {3, "lengths of name and owner"}, {5, "name"}, {6, "owner"},
		{16, "id"}, {16, "parent"}, {8, "epoch"}, {12, "created"}, {1, "flags"}, {3, "lengths of name and owner"}, {7, "name"},
		{4, "CRC"},
	} {
		fmt.Fprintf(&out, "%-48s # %s\n", fmt.Sprintf("% x", b[:f.n]), f.name)
		b = b[f.n:]
	}
	return out.Bytes()
}

func FuzzDecode(f *testing.F) {
	good := encode(5, sample())
	f.Add(good[64 : len(good)-4])
	f.Fuzz(func(t *testing.T, body []byte) {
		b := format.AppendHeader(nil, format.Header{Kind: format.KindRegistry, Version: 1, MinReader: 1, Number: 5})
		b = append(b, body...)
		if len(b) >= 68 {
			n := len(b) + 4
			copy(b[64:], []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
		}
		crc := format.CRC(b)
		b = append(b, byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24))
		g, records, err := decode(b)
		if err == nil && !bytes.Equal(encode(g, records), b) {
			t.Fatal("does not survive a round trip")
		}
	})
}
