package volumedriver

import (
	"bytes"
	"maps"
	"testing"

	"openvstorage/internal/format/golden"
	"openvstorage/internal/format/unknown"

	"github.com/google/uuid"
)

func sampleReached() Reached {
	return Reached{{1, 15: 1}: {Epoch: 3, Seq: 1 << 40}, {2, 15: 2}: {Epoch: 1, Seq: 7}}
}

func TestReachedGolden(t *testing.T) {
	want := sampleReached()
	var fields []golden.Field
	for range want {
		fields = append(fields, golden.Field{Size: 16, Name: "id"}, golden.Field{Size: 8, Name: "epoch"}, golden.Field{Size: 8, Name: "seq"})
	}
	b := golden.Check(t, "testdata/reached-v1.hex", "how far vDisks were flushed, version 1", want.Append(nil), fields...)
	if got, err := DecodeReached(b); err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestReachedUnknown(t *testing.T) {
	b := sampleReached().Append(nil)
	of := func(says string, b []byte) unknown.Case {
		return unknown.Case{Says: says, Read: func() error { _, err := DecodeReached(b); return err }}
	}
	unknown.Walk(t, "How far vDisks were flushed", map[string]unknown.Case{
		"a form that begins with zeros": of("a form that this release does not know", append(bytes.Clone(uuid.Nil[:]), b...)),
		"a field behind the last vDisk": of("1 bytes behind the last", append(bytes.Clone(b), 1)),
	})
}

func FuzzReached(f *testing.F) {
	f.Add(sampleReached().Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeReached(b)
		if err != nil {
			return
		}
		if again, err := DecodeReached(r.Append(nil)); err != nil || !maps.Equal(again, r) {
			t.Fatalf("%v becomes %v, %v", r, again, err)
		}
	})
}
