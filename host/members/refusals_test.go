package members

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
)

// Who has refused a member is there after a restart, until that host takes a connection. A
// refusal of an earlier life or member says nothing of a later one.
func TestRefusals(t *testing.T) {
	fs := crashdisk.New()
	load := func() *refusals {
		t.Helper()
		r, err := loadRefusals(fs, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	again := func(r *refusals) *refusals {
		r.close()
		fs = fs.Kill()
		return load()
	}
	r := load()
	f := refusal{Group: "abm", Life: 3, Member: 1, By: 2}
	r.note(f, true)
	r.note(f, true)
	r.note(refusal{Group: "registry", Life: 3, Member: 1, By: 2}, true)
	r.close()
	fs = fs.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
	r = load()
	if got := r.of("abm", 3, 1); !slices.Equal(got, []uint64{2}) {
		t.Errorf("after a power cut: %v", got)
	}
	if r.of("abm", 4, 1) != nil || r.of("abm", 3, 2) != nil || r.of("nsm-0", 3, 1) != nil {
		t.Error("others are refused too")
	}
	r.note(refusal{Group: "abm", Life: 4, Member: 1, By: 5}, true)
	r = again(r)
	if r.of("abm", 3, 1) != nil || !slices.Equal(r.of("abm", 4, 1), []uint64{5}) || len(r.of("registry", 3, 1)) != 1 {
		t.Errorf("in a later life: %+v", r.now)
	}
	r.note(refusal{Group: "abm", Life: 4, Member: 1, By: 5}, false)
	r.note(refusal{Group: "registry", Life: 3, Member: 1, By: 2}, false)
	if r = again(r); len(r.now) > 0 {
		t.Errorf("taken back: %+v", r.now)
	}
}

// A file that cannot be written is written with the next word; one that cannot be read ends
// the start, by its name.
func TestRefusalsOnBadDisks(t *testing.T) {
	mem := crashdisk.New()
	fs := faultdisk.New(mem)
	r, err := loadRefusals(fs, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	failing := fs.Inject(faultdisk.Rule{Ops: faultdisk.Rename, Times: 1, Err: unix.EIO})
	f := refusal{Group: "abm", Member: 1, By: 2}
	r.note(f, true)
	r.close()
	if failing.Fired() != 1 || len(r.of("abm", 0, 1)) != 1 {
		t.Fatal("the write did not fail, or the refusal is forgotten")
	}
	r.note(f, true)
	r.close()
	if r, err = loadRefusals(mem.Kill(), "/", nil); err != nil || len(r.now) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	for name, text := range map[string]string{"damaged": "{", "newer": `{"version": 2}`, "of no version": `{}`} {
		fs := crashdisk.New()
		file, err := fs.OpenFile("/"+refusedFile, 3, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt([]byte(text), 0); err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		if _, err := loadRefusals(fs, "/", nil); err == nil || !strings.Contains(err.Error(), refusedFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The bytes of the file.
func TestRefusalsGolden(t *testing.T) {
	list := []refusal{{Group: "abm", Life: 3, Member: 1, By: 2}}
	b, err := encodeRefusals(list)
	want := "{\n  \"version\": 1,\n  \"refused\": [\n    {\n      \"group\": \"abm\",\n      \"life\": 3,\n      \"member\": 1,\n      \"by\": 2\n    }\n  ]\n}\n"
	if err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
	if got, err := decodeRefusals([]byte(want)); err != nil || !slices.Equal(got, list) {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzDecodeRefusals(f *testing.F) {
	f.Add([]byte(`{"version": 1, "refused": [{"group": "abm", "by": 2}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := decodeRefusals(b)
		if err != nil {
			return
		}
		again, err := encodeRefusals(list)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeRefusals(again); err != nil || len(got) != len(list) {
			t.Errorf("%+v reads back as %+v, %v", list, got, err)
		}
	})
}
