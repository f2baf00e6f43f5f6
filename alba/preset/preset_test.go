package preset_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"
)

func sample() preset.Preset {
	p := preset.Default(3)
	p.Name, p.Version = "gold-4.2", 7
	p.Policies = []policy.Policy{{K: 4, M: 2, C: 5, X: 2}, policy.Default}
	p.Scheme.Cipher, p.Scheme.Key = preset.CipherAES256GCM, 0x0102030405060708
	return p
}

func TestGolden(t *testing.T) {
	b, err := sample().Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	b = golden.Check(t, "testdata/preset-v1.hex", "preset, form 1: sample() in preset_test.go", b,
		golden.Field{Size: 1, Name: "form"}, golden.Field{Size: 1, Name: "length of the name"}, golden.Field{Size: 1, Name: "policies"},
		golden.Field{Size: 1, Name: "code"}, golden.Field{Size: 1, Name: "compression"}, golden.Field{Size: 1, Name: "cipher"},
		golden.Field{Size: 1, Name: "checksum"}, golden.Field{Size: 1, Name: "block log2"}, golden.Field{Size: 8, Name: "key"},
		golden.Field{Size: 8, Name: "version"}, golden.Field{Size: 8, Name: "largest object"}, golden.Field{Size: 4, Name: "chunk size"},
		golden.Field{Size: 4, Name: "inline max"}, golden.Field{Size: 8, Name: "name"}, golden.Field{Size: 8, Name: "policies"},
		golden.Field{Size: 4, Name: "CRC"})
	if p, err := preset.Decode(b); err != nil || !p.Equal(sample()) {
		t.Errorf("form 1 does not open: %+v, %v", p, err)
	}
}

const wantJSON = `{
  "name": "gold-4.2",
  "version": 7,
  "policies": [
    "4,2,5,2",
    "2,1,2,3"
  ],
  "scheme": {
    "code": 1,
    "compression": "s2",
    "cipher": "aes-256-gcm",
    "checksum": "crc-32c",
    "block_log2": 15,
    "key": 72623859790382856
  },
  "chunk_size": 16777216,
  "inline_max": 16384,
  "object_max": 268435456
}
`

func TestJSON(t *testing.T) {
	b, err := sample().JSON()
	if err != nil || string(b) != wantJSON {
		t.Errorf("%s, %v", b, err)
	}
	if p, err := preset.ParseJSON(b); err != nil || !p.Equal(sample()) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, c := range []struct{ from, to string }{
		{`"s2"`, `"s3"`}, {`"s2"`, `"zstd"`}, {`"crc-32c"`, `""`}, {`"name"`, `"nome"`}, {`"2,1,2,3"`, `"2,1,1,3"`}, {"}\n", "}{}"}, {"{", ""},
	} {
		if p, err := preset.ParseJSON([]byte(strings.Replace(wantJSON, c.from, c.to, 1))); err == nil {
			t.Errorf("with %s: %+v", c.to, p)
		}
	}
}

func TestDefaults(t *testing.T) {
	for n := range 6 {
		p := preset.Default(n)
		b, err := p.Append(nil)
		if err != nil || len(b) > preset.EncodedMax {
			t.Errorf("%d disks: %v", n, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*preset.Preset){
		"no name":             func(p *preset.Preset) { p.Name = "" },
		"bad name":            func(p *preset.Preset) { p.Name = "A" },
		"long name":           func(p *preset.Preset) { p.Name = strings.Repeat("a", 65) },
		"version 0":           func(p *preset.Preset) { p.Version = 0 },
		"no policy":           func(p *preset.Preset) { p.Policies = nil },
		"code":                func(p *preset.Preset) { p.Scheme.Code = 2 },
		"reserved":            func(p *preset.Preset) { p.Scheme.Compression = preset.CompressionLZ4 },
		"cipher":              func(p *preset.Preset) { p.Scheme.Cipher = 2 },
		"checksum":            func(p *preset.Preset) { p.Scheme.Checksum = 0 },
		"cipher without key":  func(p *preset.Preset) { p.Scheme.Key = 0 },
		"key without cipher":  func(p *preset.Preset) { p.Scheme.Cipher = 0 },
		"blocks of 2 KiB":     func(p *preset.Preset) { p.Scheme.BlockLog2 = 11 },
		"blocks of 2 MiB":     func(p *preset.Preset) { p.Scheme.BlockLog2 = 21 },
		"chunk not of blocks": func(p *preset.Preset) { p.ChunkSize++ },
		"chunk 0":             func(p *preset.Preset) { p.ChunkSize = 0 },
		"chunk too large":     func(p *preset.Preset) { p.ChunkSize = 128 << 20 },
		"inline too large":    func(p *preset.Preset) { p.InlineMax = 65537 },
		"object under chunk":  func(p *preset.Preset) { p.ObjectMax = 1 << 20 },
		"object too large":    func(p *preset.Preset) { p.ObjectMax = 2 << 30 },
	} {
		p := sample()
		change(&p)
		if err := p.Validate(); !errors.Is(err, preset.ErrPreset) && !errors.Is(err, policy.ErrPolicy) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := p.Append(nil); err == nil {
			t.Errorf("%s was written", name)
		}
		if _, err := p.JSON(); err == nil {
			t.Errorf("%s was printed", name)
		}
	}
}

func TestDamage(t *testing.T) {
	b, _ := sample().Append(nil)
	for i := range b {
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << bit
			if _, err := preset.Decode(bad); !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, format.ErrNewer) {
				t.Errorf("bit %d of byte %d: %v", bit, i, err)
			}
		}
		if _, err := preset.Decode(b[:i]); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, _ := sample().Append(nil)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4 { // let most of them pass the CRC
			binary.LittleEndian.PutUint32(b[len(b)-4:], format.CRC(b[:len(b)-4]))
		}
		p, err := preset.Decode(b)
		if err != nil {
			return
		}
		if again, err := p.Append(nil); err != nil || !bytes.Equal(again, b) {
			t.Errorf("% x became % x, %v", b, again, err)
		}
	})
}

func FuzzParseJSON(f *testing.F) {
	f.Add([]byte(wantJSON))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := preset.ParseJSON(b)
		if err != nil {
			return
		}
		text, err := p.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := preset.ParseJSON(text); err != nil || !again.Equal(p) {
			t.Errorf("%s: %v", text, err)
		}
	})
}
