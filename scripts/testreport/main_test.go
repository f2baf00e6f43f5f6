package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const in = `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: noise\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: needs fio, which is not installed\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p","Elapsed":1.5}
`
	const failing = `{"Action":"output","Package":"q","Test":"TestC","Output":"    c_test.go:9: got 1, want 2\n"}
{"Action":"fail","Package":"q","Test":"TestC"}
{"Action":"fail","Package":"q","Elapsed":0.25}
`
	for _, c := range []struct {
		what, in string
		code     int
		want     string
	}{
		{"passes", in, 0, "ok   p 1.5s\n\nLeft out:\n  p TestB: needs fio, which is not installed\n\n1 tests passed, 0 failed, 1 left out, in 1 packages\n"},
		{"fails", failing, 1, "    c_test.go:9: got 1, want 2\nFAIL q 0.2s\n\n0 tests passed, 1 failed, 0 left out, in 1 packages\n"},
		{"does not build", `{"Action":"build-output","ImportPath":"r","Output":"r.go:1: bad\n"}` + "\n" + `{"Action":"build-fail","ImportPath":"r"}`, 1, "r.go:1: bad\n\n0 tests passed, 0 failed, 0 left out, in 0 packages\n"},
		{"go says no", "go: no module\n", 1, "go: no module\n\n0 tests passed, 0 failed, 0 left out, in 0 packages\n"},
		{"nothing", "", 1, "\n0 tests passed, 0 failed, 0 left out, in 0 packages\n"},
	} {
		var out strings.Builder
		if code := run(strings.NewReader(c.in), &out); code != c.code || out.String() != c.want {
			t.Errorf("%s: code %d, want %d; it prints\n%s\nwant\n%s", c.what, code, c.code, out.String(), c.want)
		}
	}
}
