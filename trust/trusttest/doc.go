// Package trusttest has the suite that every trust.Store passes, and a Store in memory
// for tests.
package trusttest
