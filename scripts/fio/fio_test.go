package fio

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	const jobs = `{
  "jobs": [{"error": 0,
    "read": {"total_ios": 10, "iops": 5.5, "bw_bytes": 100, "clat_ns": {"max": 9000, "percentile": {"50.000000": 2000, "99.000000": 8000}}},
    "write": {"total_ios": 1, "iops": 0.5, "bw_bytes": 10, "clat_ns": {"max": 7000, "percentile": {"50.000000": 3000}}}}]
}`
	tests := []struct{ name, out, err string }{
		{"messages in front", "fio: something\n" + jobs, ""},
		{"no report", "fio: bad option\n", "its report"},
		{"an I/O error", strings.Replace(jobs, `"error": 0`, `"error": 5`, 1), "error 5"},
		{"two jobs", "{\n\"jobs\": [{}, {}]}", "2 jobs"},
	}
	want := Result{Requests: 11, IOPS: 6, Bytes: 110, P50: 3 * time.Microsecond, P99: 8 * time.Microsecond, Max: 9 * time.Microsecond}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, report := split([]byte(tt.out))
			got, err := parse(report)
			switch {
			case tt.err == "" && (err != nil || got != want):
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("got %v, want an error with %q", err, tt.err)
			}
		})
	}
}

func TestGap(t *testing.T) {
	tests := []struct {
		log  string
		want time.Duration
		bad  bool
	}{
		{log: "20, 100, 1, 0, 0\n41, 90, 1, 0, 0\n", want: 21 * time.Millisecond},
		{log: "20, 100, 1, 0, 0\n700, 90, 1, 0, 0\n720, 1, 1, 0, 0\n", want: 680 * time.Millisecond},
		{log: "600, 100, 1, 0, 0\n", want: 600 * time.Millisecond}, // nothing in the beginning counts too
		{log: "", bad: true},
		{log: "x, 1\n", bad: true},
	}
	for _, tt := range tests {
		name := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(name, []byte(tt.log), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := Gap(name); got != tt.want || (err != nil) != tt.bad {
			t.Errorf("%q: %v, %v; want %v", tt.log, got, err, tt.want)
		}
	}
}
