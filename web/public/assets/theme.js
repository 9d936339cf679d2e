// Sets the theme that was chosen before the page is painted. A file of its own, because the content security
// policy refuses inline scripts and modules run too late.
try {
  var theme = localStorage.getItem('workshop.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch (refused) {
  // Storage can be refused; then the system's theme is used.
}
