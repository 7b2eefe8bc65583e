//! The book has every key, as the macro takes them.

use expect_test::expect_file;

#[test]
fn the_page_of_the_book_is_that_of_the_table() {
    expect_file!["../../../docs/reference/keys.md"].assert_eq(&vmtest_macros_core::reference());
}
