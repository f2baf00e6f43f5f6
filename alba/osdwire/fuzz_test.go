package osdwire

import (
	"bytes"
	"errors"
	"testing"

	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
)

func sampleApply() ([]osd.Assert, []osd.Update) {
	return []osd.Assert{{Kind: osd.Equals, Key: []byte("a"), Value: []byte("v")}, {Kind: osd.NotNewer, Key: []byte("b"), Epoch: 7}},
		[]osd.Update{osdtest.Put("k", []byte("value"), 3, 9), osdtest.Delete("gone")}
}

func encodeApply(asserts []osd.Assert, updates []osd.Update) []byte {
	b := appendApply(nil, asserts, updates)
	for _, u := range updates {
		b = append(b, u.Value.Data...)
	}
	return b
}

// The bytes of an apply are those of doc.go.
func TestApplyBytes(t *testing.T) {
	want := "\x02\x00\x00\x00\x02\x00\x00\x00" +
		"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00a\x01\x00\x00\x00v" +
		"\x04\x07\x00\x00\x00\x00\x00\x00\x00\x01\x00b\x00\x00\x00\x00" +
		"\x00\x09\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x01\x00k\x05\x00\x00\x00\x01\x00\x00\x00" + string(appendCRCs(nil, osd.AppendCRCs(nil, 3, 0, []byte("value")))) +
		"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00gone\x00\x00\x00\x00\x00\x00\x00\x00" +
		"value"
	if got := encodeApply(sampleApply()); string(got) != want {
		t.Errorf("%q\n%q", got, want)
	}
}

// Whatever comes is decoded to what encodes to it again, or is refused.
func FuzzApply(f *testing.F) {
	f.Add(encodeApply(sampleApply()))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		asserts, updates, err := decodeApply(b)
		if err != nil {
			if !errors.Is(err, errBytes) && !errors.Is(err, osd.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if again := encodeApply(asserts, updates); !bytes.Equal(again, b) {
			t.Fatalf("%x\n%x", b, again)
		}
	})
}

func FuzzAnswers(f *testing.F) {
	infos := []osd.Info{{Key: []byte("k"), Found: true, Size: 5, Epoch: 9}}
	f.Add(le.AppendUint32(nil, 1), appendInfos(nil, infos))
	f.Add(le.AppendUint32(nil, 1), appendBad(nil, []osd.Bad{{Key: []byte("k"), Err: osd.ErrCorrupt}}))
	f.Add([]byte{}, appendUsage(nil, osd.Usage{Used: 1, ReadOnly: osd.ErrUnreadable}))
	f.Fuzz(func(t *testing.T, header, b []byte) {
		if infos, err := decodeInfos(header, b); err == nil && !bytes.Equal(appendInfos(nil, infos), b) {
			t.Fatal("infos")
		}
		if keys, err := decodeKeys(header, b); err == nil {
			var again []byte
			for _, k := range keys {
				again = appendKey(again, k)
			}
			if !bytes.Equal(again, b) {
				t.Fatal("keys")
			}
		}
		_, _ = decodeBad(len(header), b)
		_, _ = decodeUsage(b)
		_ = failure(258, b)
	})
}
