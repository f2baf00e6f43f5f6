package proxy

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"openvstorage/backend"
)

func sampleStats() []byte {
	s := NamespaceStats{Namespace: "n"}
	s.Read.note(7, 5000, true)
	s.Write.note(9, 1<<40, false)
	return appendStats(nil, &s)
}

// The bytes of messages are those of doc.go.
func TestBytes(t *testing.T) {
	o := object{"ns", "obj"}
	d := deletion{"ns", []string{"a", "bc"}, &backend.Condition{Name: "cat", Version: 3}}
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"put":        {putting{object: o, held: 5}.append(nil, opPut), "02 6e73 03 6f626a 0500000000000000"},
		"put-if":     {putting{object: o, version: 9}.append(nil, opPutIf), "02 6e73 03 6f626a 0000000000000000 0900000000000000"},
		"get":        {getting{o, 4096, 512}.append(nil), "02 6e73 03 6f626a 0010000000000000 00020000"},
		"stat":       {o.append(nil), "02 6e73 03 6f626a"},
		"delete":     {d.header(), "02 6e73 02000000 01 03 636174 0300000000000000"},
		"delete any": {deletion{"ns", []string{"a"}, nil}.header(), "02 6e73 01000000 00"},
		"names":      {appendNames(nil, d.names), "01 61 02 6263"},
		"list":       {listing{"ns", "o", "oa", 1000}.append(nil), "02 6e73 01 6f 02 6f61 e8030000"},
		"hold":       {part{5, 40 << 20, 32 << 20}.append(nil), "0500000000000000 0000800200000000 0000000200000000"},
		"page":       {appendPage(nil, 2, true), "02000000 01"},
		"info":       {appendInfo(nil, backend.Info{Name: "obj", Size: 7, Version: 8}), "03 6f626a 0700000000000000 0800000000000000"},
	} {
		if got := hex.EncodeToString(c.got); got != strings.ReplaceAll(c.want, " ", "") {
			t.Errorf("%s: %s", name, got)
		}
	}
	if b := sampleStats(); len(b) != statsLeast+1 || b[0] != 1 || b[2] != 1 || b[10] != 1 || b[18] != 7 {
		t.Errorf("stats: %x", b)
	}
	// Numbers of errors never change.
	for k, e := range map[kind]error{
		256: errors.New("other"), 257: backend.ErrNotFound, 258: backend.ErrExists, 259: backend.ErrConflict, 260: backend.ErrNamespaceNotFound, 261: backend.ErrNamespaceExists,
		262: backend.ErrCorrupt, 263: backend.ErrNoSpace, 264: backend.ErrName, 265: backend.ErrClosed, 266: backend.ErrKey, 267: backend.ErrUnavailable, 268: backend.ErrFailed,
		270: errBytes, 271: errNotHeld, 272: errNoRoom,
	} {
		if kindOf(e) != k {
			t.Errorf("%v is %d, not %d", e, kindOf(e), k)
		}
	}
}

// Whatever comes is decoded to what encodes to it again, or is refused.
func FuzzRequests(f *testing.F) {
	o := object{"ns", "obj"}
	f.Add(putting{object: o, held: 5}.append(nil, opPut), []byte{})
	f.Add(putting{object: o, version: 9}.append(nil, opPutIf), []byte{})
	f.Add(getting{o, 4096, 512}.append(nil), []byte{})
	d := deletion{"ns", []string{"a", "bc"}, &backend.Condition{Name: "cat", Version: 3}}
	f.Add(d.header(), appendNames(nil, d.names))
	f.Add(listing{"ns", "o", "oa", 1000}.append(nil), []byte{})
	f.Add(part{5, 40 << 20, 32 << 20}.append(nil), []byte{})
	f.Fuzz(func(t *testing.T, header, body []byte) {
		same := func(what string, err error, again []byte) {
			if err != nil && !errors.Is(err, errBytes) {
				t.Fatalf("%s: %v", what, err)
			}
			if err == nil && !bytes.Equal(again, header) {
				t.Fatalf("%s: %x, %x", what, header, again)
			}
		}
		p, err := decodePutting(opPut, header)
		same("put", err, p.append(nil, opPut))
		p, err = decodePutting(opPutIf, header)
		same("put-if", err, p.append(nil, opPutIf))
		g, err := decodeGetting(header)
		same("get", err, g.append(nil))
		l, err := decodeListing(header)
		same("list", err, l.append(nil))
		h, err := decodePart(header)
		same("hold", err, h.append(nil))
		d, err := decodeDeletion(header, body)
		same("delete", err, d.header())
		if err == nil && !bytes.Equal(appendNames(nil, d.names), body) {
			t.Fatalf("names: %x", body)
		}
	})
}

func FuzzAnswers(f *testing.F) {
	f.Add(appendPage(nil, 1, true), appendInfo(nil, backend.Info{Name: "obj", Size: 7, Version: 8}))
	f.Add(appendPage(nil, 1, false), sampleStats())
	f.Fuzz(func(t *testing.T, header, body []byte) {
		count, more, err := decodePage(header)
		if err != nil {
			return
		}
		if !bytes.Equal(appendPage(nil, int(count), more), header) {
			t.Fatal("page")
		}
		var again []byte
		if infos, err := decodeInfos(count, body); err == nil {
			for _, i := range infos {
				again = appendInfo(again, i)
			}
			if !bytes.Equal(again, body) {
				t.Fatal("infos")
			}
		}
		if list, err := decodeStats(count, body); err == nil {
			again = nil
			for i := range list {
				again = appendStats(again, &list[i])
			}
			if !bytes.Equal(again, body) {
				t.Fatal("stats")
			}
		}
	})
}
