package groups

import (
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"openvstorage/internal/format"
	"openvstorage/internal/generation"
)

// TestRecovery: the record of a decision has these bytes, and what a later release may write
// is told from damage.
func TestRecovery(t *testing.T) {
	r := Recovery{From: FromBackup, Time: time.Unix(1, 2).UTC(), Life: 3, Revision: 4, OfLife: 2}
	b := r.Append(nil)
	if got := hex.EncodeToString(b); got != "010100000000000002ca9a3b00000000030000000000000004000000000000000200000000000000" {
		t.Errorf("its bytes are %s", got)
	}
	if got, err := DecodeRecovery(b); err != nil || got != r {
		t.Errorf("%+v, %v", got, err)
	}
	nothing := Recovery{From: FromNothing, Time: time.Unix(1, 2).UTC(), Life: 3}
	if got, err := DecodeRecovery(nothing.Append(nil)); err != nil || got != nothing {
		t.Errorf("%+v, %v", got, err)
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"empty": {nil, format.ErrCorrupt}, "cut": {b[:39], format.ErrCorrupt}, "longer": {append(b[:len(b):len(b)], 0), format.ErrNewer},
		"version": {append([]byte{2}, b[1:]...), format.ErrNewer}, "from": {append([]byte{1, 9}, b[2:]...), format.ErrNewer}, "field": {append([]byte{1, 1, 1}, b[3:]...), format.ErrNewer},
	} {
		if _, err := DecodeRecovery(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeRecovery(f *testing.F) {
	f.Add(Recovery{From: FromBackup, Life: 1}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecovery(b)
		if err != nil {
			return
		}
		if again, err := DecodeRecovery(r.Append(nil)); err != nil || again != r {
			t.Errorf("%+v reads back as %+v, %v", r, again, err)
		}
	})
}

// TestKeysOfThisPackage: what others look for in a backup is what this package writes.
func TestKeysOfThisPackage(t *testing.T) {
	g := &Groups{}
	m := generation.Mark{Number: 5, Start: 6}
	if got, ok, err := MarkIn(g.generationKey(), m.Append(nil)); err != nil || !ok || got != m {
		t.Errorf("%v, %v, %v", got, ok, err)
	}
	if _, ok, err := MarkIn([]byte("host/generation/x"), m.Append(nil)); err != nil || ok {
		t.Errorf("another directory's: %v, %v", ok, err)
	}
	if name, ok := WitnessIn(witnessKey("reached")); !ok || name != "reached" {
		t.Errorf("%q, %v", name, ok)
	}
	for dir, want := range map[string]string{DirOf("nsm-0", 1): "nsm-0", DirOf("abm", 7): "abm", "a.b": "a.b"} {
		if got := NameOf(dir); got != want {
			t.Errorf("%s is %s", dir, got)
		}
	}
}
