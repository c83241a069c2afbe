"""The application as a person meets it: served by Voilà, in a Chromium, offline."""

TABS = ["you", "new", "similar", "compare", "results"]


def test_every_page_shows_content_and_asks_no_other_machine(visitor):
    visitor.open()
    assert "Person" in visitor.text("person_card")
    assert len(visitor.titles("person_list")) == 10
    visitor.tab("new")
    assert "the films that most people know" in visitor.text("new_list")
    visitor.tab("similar")
    assert visitor.page.locator("[data-region=similar_lists] section").count() == 3
    visitor.tab("compare")
    assert "watched next" in visitor.text("compare_lists")
    visitor.tab("results")
    assert "120 people" in visitor.text("results_data")
    assert "leads with" in visitor.text("results_board")
    assert "error" not in visitor.page.inner_text("body").lower()
