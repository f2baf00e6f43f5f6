// Package lint holds the rules that the module keeps about its own source, as tests:
// which package may import which, that every package says what it is, and that no file
// is too long or promises work for later.
package lint
