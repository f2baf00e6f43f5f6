package transport

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// some makes a message with fields set or absent at random.
func some(rng *rand.Rand) *pb.Message {
	number := func() *uint64 {
		switch rng.IntN(4) {
		case 0:
			return nil
		case 1:
			return new(uint64(rng.IntN(3)))
		case 2:
			return new(uint64(math.MaxUint64))
		}
		return new(rng.Uint64() >> rng.IntN(64))
	}
	data := func(most int) []byte {
		if rng.IntN(3) == 0 {
			return nil
		}
		b := make([]byte, rng.IntN(most))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	m := &pb.Message{From: number(), To: number(), Term: number(), LogTerm: number(), Index: number(), Commit: number(), Vote: number(), RejectHint: number(), Context: data(50)}
	if rng.IntN(5) > 0 {
		m.Type = new(pb.MessageType(rng.IntN(24)))
	}
	if rng.IntN(2) > 0 {
		m.Reject = new(rng.IntN(2) > 0)
	}
	for range rng.IntN(4) {
		e := &pb.Entry{Term: number(), Index: number(), Data: data(2 * copyMax)}
		if rng.IntN(2) > 0 {
			e.Type = new(pb.EntryType(rng.IntN(3)))
		}
		m.Entries = append(m.Entries, e)
	}
	if rng.IntN(4) == 0 {
		m.Snapshot = &pb.Snapshot{Data: data(20), Metadata: &pb.SnapshotMetadata{Index: number(), Term: number(), ConfState: &pb.ConfState{Voters: []uint64{1, 2}}}}
	}
	return m
}

// What is encoded here is what protobuf makes, and what is decoded is what was encoded.
func TestMessagesAreProtobuf(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var messages []*pb.Message
		var want []byte
		for range 1 + rng.IntN(4) {
			m := some(rng)
			b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			messages = append(messages, m)
			want = append(append(want, byte(len(b)), byte(len(b)>>8), byte(len(b)>>16), 0), b...)
		}
		pieces, size, err := encode(messages)
		if err != nil {
			t.Fatal(err)
		}
		got := bytes.Join(pieces, nil)
		if !bytes.Equal(got, want) || size != len(want) {
			t.Fatalf("%d bytes, said to be %d, instead of %d:\n%x\n%x", len(got), size, len(want), got, want)
		}
		back, err := decode(got, len(messages))
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range messages {
			if !proto.Equal(m, back[i]) {
				t.Fatalf("%v came back as %v", m, back[i])
			}
		}
	}
}

// Long data leaves from where it lies.
func TestLongDataIsNotCopied(t *testing.T) {
	m := appendOf(1, 2, 5, 1<<20)
	pieces, _, err := encode([]*pb.Message{m, appendOf(1, 2, 6, 100)})
	if err != nil || len(pieces) != 3 || &pieces[1][0] != &m.Entries[0].Data[0] {
		t.Fatalf("%d pieces, %v", len(pieces), err)
	}
	if n := testing.AllocsPerRun(100, func() { encode([]*pb.Message{m}) }); n > 5 {
		t.Errorf("%v allocations", n)
	}
}

func TestBadHeaders(t *testing.T) {
	good := header{stream: ordered, count: 2, run: 3, number: 4, from: 5, to: 6}
	if h, err := decodeHeader(good.append(nil)); err != nil || h != good {
		t.Fatal(h, err)
	}
	for name, change := range map[string]func(b []byte) []byte{
		"newer":     func(b []byte) []byte { b[0] = version + 1; return append(b, 1) },
		"version 0": func(b []byte) []byte { b[0] = 0; return b },
		"short":     func(b []byte) []byte { return b[:31] },
		"long":      func(b []byte) []byte { return append(b, 0) },
		"empty":     func(b []byte) []byte { return nil },
		"stream":    func(b []byte) []byte { b[1] = 2; return b },
		"none":      func(b []byte) []byte { b[2] = 0; return b },
		"many":      func(b []byte) []byte { b[3] = 5; return b },
		"run 0":     func(b []byte) []byte { b[4] = 0; return b },
		"urgent":    func(b []byte) []byte { b[1] = 0; return b },
	} {
		want := ErrCorrupt
		if name == "newer" {
			want = ErrNewer
		}
		if _, err := decodeHeader(change(good.append(nil))); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A body cannot make the receiver take much more memory than it has bytes.
func TestBodiesAreBounded(t *testing.T) {
	many := bytes.Repeat([]byte{7<<3 | 2, 0}, entriesMax+1)
	body := append([]byte{byte(len(many)), byte(len(many) >> 8), byte(len(many) >> 16), 0}, many...)
	if _, err := decode(body, 1); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%d entries: %v", entriesMax+1, err)
	}
	for name, body := range map[string][]byte{"length": {9, 0, 0, 0}, "half a length": {0, 0}, "another": {0, 0, 0, 0, 0, 0, 0, 0}, "none": nil} {
		if _, err := decode(body, 1); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := encode([]*pb.Message{{Responses: []*pb.Message{{}}}}); err == nil {
		t.Error("a message for this member itself was encoded")
	}
}

// Neighbouring releases speak these bytes. They never change.
func TestBytesNeverChange(t *testing.T) {
	snap := &pb.Message{Type: new(pb.MsgSnap), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(7)), Snapshot: &pb.Snapshot{Data: []byte("0123456789abcdef"), Metadata: &pb.SnapshotMetadata{Index: new(uint64(9)), Term: new(uint64(6)), ConfState: &pb.ConfState{Voters: []uint64{1, 2}, Learners: []uint64{3}}}}}
	vote := &pb.Message{Type: new(pb.MsgPreVoteResp), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(7)), Reject: new(true), RejectHint: new(uint64(300)), Context: []byte("force"), Vote: new(uint64(4))}
	pieces, _, err := encode([]*pb.Message{appendOf(1, 2, 1000, 20), snap, vote})
	if err != nil {
		t.Fatal(err)
	}
	h := header{stream: ordered, count: 3, run: 0x01020304, number: 0x05060708090a0b0c, from: 1, to: 2}
	ask := asking{bytes: 4096, offset: 1 << 33, from: 1, to: 2, id: SnapshotID([]byte("0123456789abcdef")), name: "000012.sst"}
	listHead, list, err := encodeFiles([]SnapshotFile{{Name: "MANIFEST-000001", Size: 77, CRC: 0x01020304}, {Name: "000012.sst", Size: 1 << 32}})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join([]string{
		hex.EncodeToString(h.append(nil)), hex.EncodeToString(bytes.Join(pieces, nil)), hex.EncodeToString(ask.append(nil)), hex.EncodeToString(listHead), hex.EncodeToString(list), "",
	}, "\n")
	name := filepath.Join("testdata", "requests-v1.hex")
	want, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) && os.Getenv("WRITE_GOLDEN") != "" {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(name, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err != nil || got != string(want) {
		t.Errorf("%v\n%s", err, got)
	}
}

func FuzzDecodeMessages(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		pieces, _, err := encode([]*pb.Message{some(rng), some(rng)})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Join(pieces, nil))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		messages, err := decode(body, 2)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		pieces, _, err := encode(messages)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode(bytes.Join(pieces, nil), 2)
		if err != nil {
			t.Fatalf("what was decoded and encoded cannot be decoded: %v", err)
		}
		for i := range messages {
			if !proto.Equal(messages[i], again[i]) {
				t.Fatalf("%v became %v", messages[i], again[i])
			}
			n := len(body)
			theirs := new(pb.Message)
			size := int(body[0]) | int(body[1])<<8 | int(body[2])<<16 | int(body[3])<<24
			if err := proto.Unmarshal(body[4:4+size], theirs); err != nil && !strings.Contains(err.Error(), "UTF") {
				continue // stricter than we are, with what it does not know
			}
			if body = body[4+size:]; len(theirs.ProtoReflect().GetUnknown()) == 0 && n > 0 {
				for _, e := range theirs.Entries {
					e.ProtoReflect().SetUnknown(nil)
				}
				if !proto.Equal(theirs, messages[i]) && !odd(messages[i]) {
					t.Fatalf("protobuf reads %v, we read %v", theirs, messages[i])
				}
			}
		}
	})
}

// odd says whether a message has kinds that protobuf takes for fields that it does not know.
func odd(m *pb.Message) bool {
	_, ok := pb.MessageType_name[int32(m.GetType())]
	for _, e := range m.Entries {
		_, known := pb.EntryType_name[int32(e.GetType())]
		ok = ok && known
	}
	return !ok
}

func FuzzDecodeAsking(f *testing.F) {
	a := asking{bytes: 4096, from: 1, to: 2, name: "000012.sst"}
	f.Add(uint16(opSnapshotRead), a.append(nil))
	f.Fuzz(func(t *testing.T, op uint16, b []byte) {
		a, err := decodeAsking(op, b)
		if err == nil && !bytes.Equal(a.append(nil), b) {
			t.Fatalf("%x became %x", b, a.append(nil))
		}
		h, err := decodeHeader(b)
		if err == nil && !bytes.Equal(h.append(nil), b) {
			t.Fatalf("%x became %x", b, h.append(nil))
		}
	})
}

func FuzzDecodeFiles(f *testing.F) {
	head, body, err := encodeFiles([]SnapshotFile{{Name: "MANIFEST-000001", Size: 77, CRC: 0x01020304}, {Name: "000012.sst", Size: 1 << 32}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(head, body)
	f.Fuzz(func(t *testing.T, head, body []byte) {
		files, err := decodeFiles(head, body)
		if err != nil {
			return
		}
		h, b, err := encodeFiles(files)
		if err != nil || !bytes.Equal(h, head) || !bytes.Equal(b, body) {
			t.Fatalf("%v: %x %x became %x %x", err, head, body, h, b)
		}
	})
}

func TestNamesOfFiles(t *testing.T) {
	for _, bad := range []string{"", ".", "..", "a/b", "/etc/passwd", "../x", "a\x00", "x.part", strings.Repeat("a", 256)} {
		if _, _, err := encodeFiles([]SnapshotFile{{Name: bad, Size: 1}}); err == nil {
			t.Errorf("%q is offered", bad)
		}
		body := append([]byte{byte(len(bad)), byte(len(bad) >> 8), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, bad...)
		if _, err := decodeFiles([]byte{version, 0, 0, 0, 1, 0, 0, 0}, body); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q is taken: %v", bad, err)
		}
	}
	twice := []byte{1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'a'}
	if _, err := decodeFiles([]byte{version, 0, 0, 0, 2, 0, 0, 0}, append(twice, twice...)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a name twice is taken: %v", err)
	}
}
