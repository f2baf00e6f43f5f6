package attach

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// oddNames are names that vDisks may have, among them what temporary names, escapes
// and directories could be mixed up with.
func oddNames() []string {
	long := strings.Repeat("ä/b%c", 200)[:1020]
	return []string{
		"a", "a.new", "a.new.new", "a/b", "a/b.new", "a.new/b", "a%2Fb", "a%252Fb", "a%", "%", "%new", "%~", "%25", "%2F", "new", ".new",
		"-x", "a b", "ä", "a.importing", "a.raw", "a.raw/b", "a/b/c/d/e", "...", "..a", "a..", " ",
		strings.Repeat("x", 255), strings.Repeat("x", 254) + "%", strings.Repeat("x", 255) + "/y", strings.Repeat("x", 255) + "/z",
		strings.Repeat("%", 255), strings.Repeat("%", 254), long, long + "x", long + "y",
		linkName(long), // whoever knows how names are cut
	}
}

// Each name has a link of its own that is one file's name, and a simple name is it.
func TestLinkNames(t *testing.T) {
	seen := make(map[string]string)
	for _, name := range oddNames() {
		l := linkName(name)
		if len(l) == 0 || len(l) > linkMax || strings.Contains(l, "/") || l == "." || l == ".." || l == linkDraft || strings.ToValidUTF8(l, "") != l {
			t.Errorf("the link of %.40q is %q, of %d bytes", name, l, len(l))
		}
		if other, taken := seen[l]; taken {
			t.Errorf("%.40q and %.40q have the link %q", name, other, l)
		}
		seen[l] = name
		if !strings.ContainsAny(name, "/%") && l != name {
			t.Errorf("the link of %q is %q", name, l)
		}
	}
}

// FuzzLinkName: two names have two links.
func FuzzLinkName(f *testing.F) {
	names := oddNames()
	for i, name := range names {
		f.Add(name, names[(i+1)%len(names)])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if a != b && linkName(a) == linkName(b) {
			t.Errorf("%q and %q have the link %q", a, b, linkName(a))
		}
		if l := linkName(a); len(l) > linkMax || strings.Contains(l, "/") {
			t.Errorf("link %q of %q", l, a)
		}
	})
}

// Whatever is attached, renamed and detached, in whatever order: the links are those
// of what is attached, and each leads to its own device.
func TestLinksFollow(t *testing.T) {
	names, rng := oddNames(), rand.New(rand.NewPCG(14, 1))
	all := &vdisks{}
	d := devicesIn(t, t.TempDir())
	d.of = all
	for i, name := range names {
		all.list = append(all.list, VDisk{ID: uuid.UUID{15: byte(i)}, Name: name})
	}
	check := func(when string) {
		t.Helper()
		entries, err := os.ReadDir(filepath.Join(d.dir, linksDir))
		if len(entries) != len(d.list) || err != nil && len(d.list) > 0 {
			t.Fatalf("%s: %d links of %d, %v", when, len(entries), len(d.list), err)
		}
		for _, a := range d.list {
			i := slices.IndexFunc(all.list, func(v VDisk) bool { return v.ID == a.ID })
			if to, err := os.Readlink(d.link(all.list[i].Name)); err != nil || to != a.Device {
				t.Fatalf("%s: the link of %.40q leads to %s, %v; not to %s", when, all.list[i].Name, to, err, a.Device)
			}
		}
	}
	for step := range 600 {
		v := &all.list[rng.IntN(len(all.list))]
		i := d.find(v.ID)
		switch {
		case step%3 == 2: // exchange two names
			w := &all.list[rng.IntN(len(all.list))]
			v.Name, w.Name = w.Name, v.Name
			must(t, d.followAll(t.Context()))
		case i < 0:
			a := attachment{ID: v.ID, Name: v.Name, Kind: KindLoop, Device: fmt.Sprintf("/nowhere/%v", v.ID), BlockSize: 512}
			must(t, d.setLink(a))
			d.list = append(d.list, a)
		default:
			d.list = slices.Delete(d.list, i, i+1)
			d.sweepLinks()
		}
		check(fmt.Sprintf("step %d", step))
	}
	d.list = nil
	d.sweepLinks()
	check("nothing attached")
}

// Links of older releases are removed at a start; what is no link stays.
func TestLinksOfOlderRelease(t *testing.T) {
	dir := t.TempDir()
	dev := filepath.Join(dir, linksDir)
	must(t, os.MkdirAll(filepath.Join(dev, "a", "b"), 0o755))
	must(t, os.MkdirAll(filepath.Join(dev, "mine"), 0o755))
	for _, name := range []string{"a/b/c", "web", "web.new", "mine/link"} {
		must(t, os.Symlink("/dev/loop0", filepath.Join(dev, name)))
	}
	for _, name := range []string{"mine/file", "letter"} {
		must(t, os.WriteFile(filepath.Join(dev, name), nil, 0o600))
	}
	d := devicesIn(t, dir)
	must(t, d.Open(t.Context()))
	var left []string
	must(t, filepath.WalkDir(dev, func(name string, _ os.DirEntry, err error) error {
		left = append(left, strings.TrimPrefix(name, dev))
		return err
	}))
	if want := []string{"", "/letter", "/mine", "/mine/file"}; !slices.Equal(left, want) {
		t.Errorf("left are %q", left)
	}
}
