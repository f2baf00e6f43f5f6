package attach

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/uuid"
)

// Both versions of the file, as they were written. They never change.
func TestAttachmentsGolden(t *testing.T) {
	nbd := attachment{
		ID: uuid.MustParse("4d2f0f4e-98a5-4a10-9f5a-0f60f1d36c11"), Name: "vm/disk", Kind: KindNBD, Device: "/dev/nbd0", ReadOnly: true,
		BlockSize: 4096, Connections: 4, Timeout: 30, DeadTimeout: 300, Boot: "9b3f", PID: "17",
	}
	loop := attachment{ID: uuid.MustParse("4d2f0f4e-98a5-4a10-9f5a-0f60f1d36c12"), Name: "web", Kind: KindLoop, Device: "/dev/loop9"}
	for name, want := range map[string][]attachment{"attachments-v1.json": {loop}, "attachments-v2.json": {nbd, loop}} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeAttachments(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if raw, err := json.MarshalIndent(attachments{attachmentsVersion, want}, "", "\t"); len(want) == 2 && (err != nil || string(raw)+"\n" != string(text)) {
			t.Errorf("%s is written otherwise: %s, %v", name, raw, err)
		}
	}
}

func FuzzAttachments(f *testing.F) {
	for _, name := range []string{"attachments-v1.json", "attachments-v2.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := decodeAttachments(text)
		if err != nil {
			return
		}
		raw, err := json.Marshal(attachments{attachmentsVersion, list})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := decodeAttachments(raw); err != nil || len(again) != len(list) {
			t.Fatalf("%s: %d of %d, %v", raw, len(again), len(list), err)
		}
	})
}
