package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sourceOf is the source of packages, without tests.
func sourceOf(t *testing.T, dirs ...string) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range dirs {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		must(t, err)
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			text, err := os.ReadFile(name)
			must(t, err)
			all.Write(text)
		}
	}
	return all.String()
}

// callRow is a call as docs/management.md describes it.
type callRow struct{ methods, commands []string }

var (
	routed      = regexp.MustCompile(`\bhandle(ALBA|Stream)?\(s, mux, "([a-z/-]*[a-z])"`)
	clientCall  = regexp.MustCompile(`(?s)\nfunc \([cgh] \*(?:Groups|Hosts)?Client\) (\w+)\(([^\n]*\n.*?)\n}\n`)
	calledThere = regexp.MustCompile(`\bcall(?:Stream)?\[[^\n]*\]\(ctx, c, "([^"]+)"`)
	tableRow    = regexp.MustCompile("(?m)^\\| `([a-z/-]+)` \\| ([^|]*) \\| ([^|]*)\\| [^|]+ \\|$")
	inTable     = regexp.MustCompile("`(?:(?:Groups|Hosts)?Client\\.(\\w+)\\(\\)|ovs ([a-z -]+))`")
)

// TestCalls: every call that the server answers has a method of the client, which
// sends it, and a command, which uses that; and docs/management.md says all three.
func TestCalls(t *testing.T) {
	source := sourceOf(t, "../../internal/control")
	calls := map[string][]string{} // methods of the client
	for _, m := range routed.FindAllStringSubmatch(source, -1) {
		name := m[2]
		if m[1] == "ALBA" {
			name = "alba/" + name
		}
		if _, twice := calls[name]; twice {
			t.Errorf("call %s is routed twice", name)
		}
		calls[name] = nil
	}
	if len(calls) < 30 {
		t.Fatalf("only %d calls were found: is it said in another way where they go?", len(calls))
	}
	for _, m := range clientCall.FindAllStringSubmatch(source, -1) {
		for _, c := range calledThere.FindAllStringSubmatch(m[2], -1) {
			if _, there := calls[c[1]]; !there {
				t.Errorf("Client.%s sends %s, which the server does not know", m[1], c[1])
			}
			calls[c[1]] = append(calls[c[1]], m[1])
		}
	}
	page, err := os.ReadFile("../../docs/management.md")
	must(t, err)
	rows := map[string]callRow{}
	for _, m := range tableRow.FindAllStringSubmatch(string(page), -1) {
		var row callRow
		for _, in := range inTable.FindAllStringSubmatch(m[2]+m[3], -1) {
			if in[1] != "" {
				row.methods = append(row.methods, in[1])
			} else {
				row.commands = append(row.commands, in[2])
			}
		}
		rows[m[1]] = row
		if _, there := calls[m[1]]; !there {
			t.Errorf("docs/management.md has %s, which the server does not know", m[1])
		}
	}
	uses := sourceOf(t, ".", "clustercmd", "arakooncmd", "inspectcmd", "proxycmd", "recovercmd", "../../internal/image")
	for call, methods := range calls {
		row, there := rows[call]
		slices.Sort(methods)
		slices.Sort(row.methods)
		switch {
		case !there:
			t.Errorf("call %s is not in docs/management.md", call)
			continue
		case len(methods) == 0:
			t.Errorf("call %s: the client has no method that sends it", call)
		case !slices.Equal(methods, row.methods):
			t.Errorf("call %s is sent by %q; docs/management.md says by %q", call, methods, row.methods)
		}
		if call == "status" { // the client asks it by itself
			continue
		}
		for _, m := range methods {
			if !regexp.MustCompile(`\b(client|Client\)|Of(?:Groups|Hosts)\(client\))\.` + m + `\b`).MatchString(uses) {
				t.Errorf("call %s: no command uses Client.%s", call, m)
			}
		}
		if len(row.commands) == 0 {
			t.Errorf("call %s: docs/management.md names no command", call)
		}
		for _, command := range row.commands {
			c, rest, err := newApp(nil, nil).root().Find(strings.Fields(command))
			if err != nil || len(rest) > 0 || !c.Runnable() || c.CommandPath() != "ovs "+command {
				t.Errorf("call %s: there is no command ovs %s (%v, %q)", call, command, err, rest)
			}
		}
	}
}
