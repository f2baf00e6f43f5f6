package host

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	albahere "openvstorage/alba/embedded"
	"openvstorage/device"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/volumedriver"
)

// What a whole system does when anything of it is lost: a file or a directory
// removed, cut, zeroed, or put back from an older copy. It starts and says what is
// wrong, or does not start and says why; it runs for three minutes; and when what
// was lost is put back, all that was flushed can be read. So nothing was deleted
// meanwhile that it needed (P8).

// lossDisk is the size of the vDisks.
const lossDisk = 2 << 20

// past is the history of a system: what it was at some moments, and is now.
type past struct {
	images  []*crashdisk.FS // oldest first; some of a running process
	now     *crashdisk.FS
	content map[string][]byte // flushed, by vDisk
	roots   []string          // directories that belong to it
}

// losing opens the process's insides as `ovs up` does, maintenance in the
// background with its own times.
func losing(fs disk.FS, apart, accept bool) (*whole, error) {
	return openWhole(fs, func(o *albahere.Options) {
		o.AcceptOlder = accept
		if apart {
			o.Dirs = []string{"/disk/0", "/disk/1", "/disk/2"}
		}
	})
}

// live makes a past: two starts and what happens in them.
func live(t *testing.T, rng *rand.Rand) *past {
	ctx := context.Background()
	fs := crashdisk.New()
	p := &past{content: make(map[string][]byte), roots: []string{"/data"}}
	apart := rng.IntN(2) == 0
	if apart {
		must(t, fs.MkdirAll("/disk", 0o700))
		must(t, fs.SyncDir("/"))
		p.roots = append(p.roots, "/disk")
	}
	// write changes a vDisk here and there and flushes it.
	write := func(h *whole, name string, n int) {
		t.Helper()
		d, release, err := openDisk(ctx, h.Host, name)
		must(t, err)
		defer release()
		for range n {
			data := make([]byte, 4096*(1+rng.IntN(30)))
			for i := range data {
				data[i] = byte(rng.Uint32())
			}
			off := 4096 * rng.IntN((lossDisk-len(data))/4096)
			must(t, d.Write(ctx, []device.Span{{Off: int64(off), Data: data}}))
			copy(p.content[name][off:], data)
		}
		must(t, d.Flush(ctx))
	}
	sync := func(h *whole, names ...string) {
		for _, name := range names {
			must(t, h.Host.Sync(ctx, name, nil))
		}
	}
	remember := func() { p.images = append(p.images, fs.Kill()) }

	h, err := losing(fs, apart, false)
	must(t, err)
	_, err = h.Host.Create(ctx, "v", lossDisk)
	must(t, err)
	p.content["v"] = make([]byte, lossDisk)
	write(h, "v", 10)
	remember()
	if rng.IntN(2) == 0 {
		sync(h, "v")
	}
	_, err = h.Host.Clone(ctx, "v", "", "c", nil)
	must(t, err)
	p.content["c"] = bytes.Clone(p.content["v"])
	write(h, "c", 5)
	write(h, "v", 5)
	sync(h, "v", "c")
	must(t, h.alba.Beat(ctx))
	remember()
	must(t, h.Close(ctx))
	remember()

	h, err = losing(fs, apart, false)
	must(t, err)
	write(h, "v", 10)
	if rng.IntN(2) == 0 {
		sync(h, "v")
	}
	_, err = h.Host.Create(ctx, "w", lossDisk)
	must(t, err)
	p.content["w"] = make([]byte, lossDisk)
	write(h, "w", 5)
	must(t, h.alba.Beat(ctx))
	remember()
	write(h, "w", 5)
	write(h, "c", 5)
	if rng.IntN(2) == 0 {
		sync(h, "v", "c", "w")
	}
	if rng.IntN(2) == 0 { // it is killed
		must(t, h.alba.Beat(ctx))
		p.now = fs.Kill()
		must(t, h.Close(ctx))
		return p
	}
	must(t, h.Close(ctx))
	p.now = fs.Kill()
	return p
}

var quiet = slog.New(slog.DiscardHandler)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// walk lists what is under a directory, directories too, deepest last.
func walk(t *testing.T, fs disk.FS, dir string) (all []string) {
	t.Helper()
	names, err := fs.ReadDir(dir)
	must(t, err)
	for _, name := range names {
		name = path.Join(dir, name)
		all = append(all, name)
		if info, err := fs.Stat(name); err == nil && info.IsDir() {
			all = append(all, walk(t, fs, name)...)
		}
	}
	return all
}

// lose loses something of an image.
func (p *past) lose(t *testing.T, rng *rand.Rand, fs *crashdisk.FS) loss {
	t.Helper()
	root := p.roots[rng.IntN(len(p.roots))]
	if len(p.roots) > 1 && rng.IntN(12) == 0 { // with its disks in it, it would be a whole copy
		return p.older(rng, fs, "/data")
	}
	all := walk(t, fs, root)
	if rng.IntN(2) == 0 { // half of them of the groups: all else stands on those
		all = walk(t, fs, "/data/arakoon")
		all = append(all, "/data/arakoon", "/data/ovs.format")
	}
	name := all[rng.IntN(len(all))]
	info, err := fs.Stat(name)
	must(t, err)
	kind := rng.IntN(4)
	if info.IsDir() && kind > 1 {
		kind %= 2
	}
	switch kind {
	case 0:
		must(t, fs.RemoveAll(name))
		return loss{name: name, how: "removed"}
	case 1:
		return p.older(rng, fs, name)
	}
	f, err := fs.OpenFile(name, disk.Write, 0)
	must(t, err)
	defer f.Close()
	size := info.Size()
	at := rng.Int64N(size + 1)
	if rng.IntN(2) == 0 {
		at = at / 4096 * 4096
	}
	if kind == 2 {
		must(t, f.Truncate(at))
		return loss{name: name, how: fmt.Sprintf("cut at %d", at)}
	}
	n := min(size-at, rng.Int64N(1<<20))
	_, err = f.WriteAt(make([]byte, n), at)
	must(t, err)
	return loss{name: name, how: fmt.Sprintf("zeros in [%d, %d)", at, at+n)}
}

// older puts a name back as it was once; one that was not there is removed.
func (p *past) older(rng *rand.Rand, fs *crashdisk.FS, name string) loss {
	i := rng.IntN(len(p.images))
	if fs.Copy(name, p.images[i], name) != nil {
		_ = fs.RemoveAll(name)
	}
	return loss{name: name, how: fmt.Sprintf("as of image %d of %d", i, len(p.images))}
}

// restore puts a name back as it is.
func (p *past) restore(t *testing.T, fs *crashdisk.FS, name string) {
	t.Helper()
	if _, err := p.now.Stat(name); err != nil {
		must(t, fs.RemoveAll(name))
		return
	}
	must(t, fs.MkdirAll(path.Dir(name), 0o700))
	must(t, fs.Copy(name, p.now, name))
}

// reads compares all vDisks with what was flushed, and returns those that are
// halted or cannot be read. Other bytes than those are a failure, always.
func (p *past) reads(t *testing.T, h *whole) (bad []string) {
	t.Helper()
	ctx := context.Background()
	for name, want := range p.content {
		info, err := h.Host.Info(ctx, name)
		if err == nil && info.State != volumedriver.StateRunning {
			err = fmt.Errorf("%s: %s", info.State, info.Reason)
		}
		var d device.Device
		var release func()
		if err == nil {
			d, release, err = openDisk(ctx, h.Host, name)
		}
		if err == nil {
			got := make([]byte, len(want))
			patience, enough := context.WithTimeout(ctx, time.Minute) // a read waits for lost disks
			err = d.Read(patience, got, 0)
			enough()
			release()
			if err == nil && !bytes.Equal(got, want) {
				at := 0
				for got[at] == want[at] {
					at++
				}
				t.Errorf("vDisk %s: byte %d is %#x, not %#x", name, at, got[at], want[at])
			}
		}
		if err != nil {
			bad = append(bad, fmt.Sprintf("vDisk %s: %v", name, err))
		}
	}
	return bad
}

// losses is how many losses there are: the bar is 1000.
func losses(usual int) int {
	if n, err := strconv.Atoi(os.Getenv("OVS_LOSSES")); err == nil {
		return n
	}
	return usual
}

func TestWholeLosses(t *testing.T) {
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("OVS_TEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("OVS_TEST_SEED=%d", seed)
	const each = 20
	for i := range max(1, losses(60)/each) {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			p := live(t, rand.New(rand.NewPCG(seed, uint64(i))))
			for j := range each {
				rng := rand.New(rand.NewPCG(seed, uint64(i*each+j+1)<<20))
				t.Run(strconv.Itoa(j), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { p.loss(t, rng) })
				})
			}
		})
	}
}

// loss loses one to three things and starts. As long as it does not start, or is
// not well, what was lost is put back, one after the other, as whoever reads what
// it says would do: what it names first.
func (p *past) loss(t *testing.T, rng *rand.Rand) {
	fs := p.now.Kill()
	var lost []loss
	for range 1 + rng.IntN(3) {
		if _, err := fs.ReadDir("/data/arakoon"); err != nil {
			break
		}
		lost = append(lost, p.lose(t, rng, fs))
	}
	t.Logf("lost: %v", lost)
	accept, ran := false, false
	for round := 0; ; round++ {
		bad := p.try(t, fs, accept)
		if len(bad) == 0 {
			return
		}
		text := strings.Join(bad, "; ")
		t.Logf("round %d: %s", round, text)
		if strings.Contains(text, "--accept-older") && slices.ContainsFunc(lost, func(l loss) bool { return l.back && l.name == "/data" }) {
			accept = true // the newest is back, and the older copy that ran is newer to the disks
			continue
		}
		if slices.ContainsFunc(lost, func(l loss) bool { return l.late && strings.Contains(text, l.name) }) {
			return // the system had gone on without it, and refuses what is older than that, by name
		}
		started := !strings.HasPrefix(bad[0], notStarted)
		i := next(lost, text)
		if i < 0 {
			t.Fatalf("all was put back, and it is not well: %s", text)
		}
		p.restore(t, fs, lost[i].name)
		ran = ran || started
		lost[i].back, lost[i].late = true, ran
	}
}

// loss is something that was lost.
type loss struct {
	name, how string
	back      bool
	late      bool // it was put back after a start that had gone on without it
}

// notStarted begins the complaint of a start that failed.
const notStarted = "not started: "

// next is what to put back: what a complaint names, or lies under, before all
// else, and directories before what is in them.
func next(lost []loss, complaint string) int {
	best, bestScore := -1, 0
	for i, l := range lost {
		if l.back {
			continue
		}
		score := 1
		switch {
		case strings.Contains(complaint, l.name):
			score = 4
		case strings.Contains(complaint, path.Dir(l.name)):
			score = 3
		case strings.Contains(complaint, path.Dir(path.Dir(l.name))):
			score = 2
		}
		if score > bestScore || score == bestScore && len(l.name) < len(lost[best].name) {
			best, bestScore = i, score
		}
	}
	return best
}

// try starts, runs for three minutes, and returns what is wrong. A start that fails
// says where.
func (p *past) try(t *testing.T, fs disk.FS, accept bool) (bad []string) {
	t.Helper()
	h, err := losing(fs, false, accept)
	if err != nil {
		if !strings.Contains(err.Error(), "/data") && !strings.Contains(err.Error(), "/disk") {
			t.Errorf("it does not say where: %v", err)
		}
		return []string{notStarted + err.Error()}
	}
	time.Sleep(3 * time.Minute)
	bad = p.reads(t, h)
	s, err := h.alba.Status(context.Background())
	if err != nil {
		bad = append(bad, err.Error())
	} else if s.Health == albahere.HealthBad || s.Missing > 0 {
		bad = append(bad, s.Reasons...)
	}
	if err := h.Close(context.Background()); err != nil {
		t.Errorf("close: %v", err)
	}
	return bad
}
